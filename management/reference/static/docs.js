// Shows the OpenAPI document of the gateway that this page came from. Text goes in as text: nothing here makes HTML of it.
"use strict";

const METHODS = ["get", "post", "put", "patch", "delete"];
const main = document.getElementById("main");
let api;

/** An element; children are elements, texts, or null for nothing. */
function make(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Text with `code` in it. */
function prose(text) {
  return text.split("`").map((part, at) => (at % 2 ? make("code", {}, part) : part));
}

function resolve(schema) {
  let found = schema ?? {};
  while (found.$ref !== undefined) {
    const { $ref, ...beside } = found;
    found = { ...$ref.split("/").slice(1).reduce((place, part) => place[part], api), ...beside };
  }
  return found;
}

const nameOf = (schema) => schema?.$ref?.split("/").at(-1);

/** What a schema takes, in a word or some. */
function kindOf(schema) {
  if (schema === undefined) return "bytes";
  const named = nameOf(schema);
  const found = resolve(schema);
  const choices = found.anyOf ?? found.oneOf;
  if (choices !== undefined) return choices.map(kindOf).join(" or ");
  if (found.enum !== undefined) return found.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (found.const !== undefined) return JSON.stringify(found.const);
  if (found.type === "array") return `list of ${kindOf(found.items)}`;
  if (named !== undefined) return named;
  const keys = Object.keys(found.properties ?? {});
  if (keys.length && keys.length < 4) return `{${keys.join(", ")}}`;
  if (found.type === "object") return found.additionalProperties ? `map to ${kindOf(found.additionalProperties)}` : "object";
  return [found.type ?? "anything", found.format && `(${found.format})`].filter(Boolean).join(" ");
}

function boundsOf(schema) {
  const found = resolve(schema);
  const pairs = [
    ["at least", found.minimum], ["more than", found.exclusiveMinimum], ["at most", found.maximum],
    ["less than", found.exclusiveMaximum], ["shortest", found.minLength], ["longest", found.maxLength],
    ["fewest", found.minItems], ["most", found.maxItems], ["pattern", found.pattern],
  ];
  const told = pairs.filter(([, value]) => value !== undefined).map(([word, value]) => `${word} ${value}`);
  if (found.default !== undefined && found.default !== null) told.push(`default ${JSON.stringify(found.default)}`);
  return told.join(", ");
}

/** The part of a schema that has fields of its own: itself, what it lists, or one of what it may be. */
function partsOf(schema) {
  const found = resolve(schema);
  const choices = found.anyOf ?? found.oneOf;
  if (choices !== undefined) return choices.flatMap(partsOf);
  if (found.type === "array" && found.items) return partsOf(found.items);
  if (found.properties !== undefined) return [found];
  return found.additionalProperties ? partsOf(found.additionalProperties) : [];
}

/** The fields, made when they are first looked at: schemas may contain themselves. */
function fieldsOf(part) {
  const list = make("ul", { class: "fields" });
  for (const [name, schema] of Object.entries(part.properties)) {
    const needed = part.required?.includes(name) ? make("span", { class: "needed", title: "required" }, "*") : null;
    const line = [make("code", {}, name), needed, " ", make("span", { class: "kind" }, kindOf(schema))];
    const more = [resolve(schema).description, boundsOf(schema)].filter(Boolean).join("; ");
    const note = more ? make("div", { class: "note" }, prose(more)) : null;
    const inner = partsOf(schema);
    if (!inner.length) {
      list.append(make("li", {}, line, note));
      continue;
    }
    const details = make("details", {}, make("summary", {}, line), note);
    details.addEventListener("toggle", () => details.append(...inner.map(fieldsOf)), { once: true });
    list.append(make("li", {}, details));
  }
  return list;
}

function shown(schema) {
  return [make("p", { class: "kind" }, kindOf(schema)), ...partsOf(schema).map(fieldsOf)];
}

function parametersOf(path, operation) {
  const all = [...(path.parameters ?? []), ...(operation.parameters ?? [])];
  if (!all.length) return [];
  const rows = all.map((each) => make("tr", {},
    make("th", { scope: "row" }, make("code", {}, each.name), each.required ? make("span", { class: "needed", title: "required" }, "*") : null),
    make("td", {}, each.in),
    make("td", {}, kindOf(each.schema)),
    make("td", { class: "note" }, prose([each.description?.replace(/\.$/, ""), boundsOf(each.schema)].filter(Boolean).join("; ")))));
  return [make("h3", {}, "Parameters"), make("table", {}, make("tbody", {}, rows))];
}

function answersOf(operation) {
  const rows = Object.entries(operation.responses).map(([status, written]) => {
    const answer = resolve(written);
    const [type, content] = Object.entries(answer.content ?? {})[0] ?? [];
    const good = status < 400;
    const told = good && content ? [make("span", { class: "kind" }, type), ...shown(content.schema)]
      : (answer["x-codes"] ?? []).map((code) => make("div", {}, make("code", {}, code)));
    return make("tr", {}, make("th", { scope: "row" }, status), make("td", {}, told.length ? told : answer.description));
  });
  return [make("h3", {}, "Answers"), make("table", {}, make("tbody", {}, rows))];
}

/** A value that fits, for the example. */
function exampleOf(schema, depth = 0) {
  const found = resolve(schema);
  if (found.default !== undefined && found.default !== null) return found.default;
  if (found.enum !== undefined) return found.enum[0];
  const choices = found.anyOf ?? found.oneOf;
  if (choices !== undefined) return exampleOf(choices.find((each) => each.type !== "null"), depth);
  if (found.type === "object" && found.properties !== undefined && depth < 4) {
    const needed = Object.entries(found.properties).filter(([name]) => found.required?.includes(name));
    return Object.fromEntries(needed.map(([name, inner]) => [name, exampleOf(inner, depth + 1)]));
  }
  return { string: "…", integer: found.minimum ?? 1, number: found.minimum ?? 1, boolean: true, array: [], object: {} }[found.type] ?? null;
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curlOf(pathname, method, operation) {
  const lines = ["curl"];
  if (method !== "get") lines[0] += ` -X ${method.toUpperCase()}`;
  if (operation.security === undefined) lines.push(`-H "Authorization: Bearer $SLUICE_ADMIN_KEY"`);
  if (operation.parameters?.some((each) => each.name === "If-Match" && each.required)) lines.push(`-H 'If-Match: "…"'`);
  const [type, content] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (type === "application/json") {
    lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(exampleOf(content.schema)))}`);
  } else if (type !== undefined) lines.push(`-H 'Content-Type: ${type}'`, "--data-binary @FILE");
  // The page may stand behind a prefix; where it came from is where the API is.
  const root = new URL("..", location.href).href.replace(/\/$/, "");
  const query = (operation.parameters ?? []).filter((each) => each.in === "query" && each.required);
  const asked = query.map((each) => `${each.name}=${exampleOf(each.schema)}`).join("&");
  lines.push(quoted(`${root}${pathname.replaceAll(/\{([a-z_]+)\}/g, (_, name) => name.toUpperCase())}${asked ? `?${asked}` : ""}`));
  return lines.join(" \\\n  ");
}

function example(pathname, method, operation) {
  const text = curlOf(pathname, method, operation);
  const copy = make("button", { type: "button", class: "copy" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      // Browsers give the clipboard to pages of HTTPS and of this machine alone.
      getSelection().selectAllChildren(copy.nextSibling);
      copy.textContent = "Selected";
    }
  });
  return [make("h3", {}, "Example"), make("div", {}, copy, make("pre", {}, text))];
}

function factsOf(operation) {
  const permit = operation["x-permit"];
  return make("p", { class: "facts" },
    make("span", {}, "Who: ", permit.because ? `everybody: ${permit.because}` : permit.text),
    operation["x-audit"] ? make("span", {}, "Audit: ", make("code", {}, operation["x-audit"])) : null,
    make("span", {}, "Id: ", make("code", {}, operation.operationId)));
}

function operationOf(pathname, path, method) {
  const operation = path[method];
  const body = Object.values(operation.requestBody?.content ?? {})[0];
  const details = make("details", { class: "operation", id: operation.operationId },
    make("summary", {}, make("span", { class: `method ${method}` }, method.toUpperCase()),
      make("span", { class: "path" }, pathname), make("span", { class: "short" }, prose(operation.summary))));
  details.addEventListener("toggle", () => details.append(make("div", {},
    factsOf(operation),
    parametersOf(path, operation),
    body ? [make("h3", {}, operation.requestBody.required ? "Body" : "Body, may be left out"),
      make("span", { class: "kind" }, Object.keys(operation.requestBody.content)[0]), ...shown(body.schema)] : [],
    answersOf(operation),
    example(pathname, method, operation))), { once: true });
  details.dataset.words = [operation.operationId, method, pathname, operation.summary, operation["x-audit"]].join(" ").toLowerCase();
  return details;
}

function show() {
  const byResource = new Map(api.tags.map((tag) => [tag.name, []]));
  for (const [pathname, path] of Object.entries(api.paths)) {
    for (const method of METHODS.filter((each) => path[each])) {
      byResource.get(path[method].tags[0]).push(operationOf(pathname, path, method));
    }
  }
  const intro = api.info.description.split("\n").filter(Boolean).map((line) => make("p", {}, prose(line.replace(/^- /, "• "))));
  main.replaceChildren(...intro, ...[...byResource].map(([name, operations]) =>
    make("section", { "aria-label": name }, make("h2", { id: `resource-${name}` }, name), operations)));
  const links = [...byResource.keys()].map((name) => make("li", {}, make("a", { href: `#resource-${name}` }, name)));
  document.getElementById("resources").replaceChildren(make("ul", {}, links));
  document.getElementById("finding").hidden = false;
  goTo();
  main.focus();
}

function goTo() {
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (place === null || !main.contains(place)) return;
  if (place.tagName === "DETAILS") place.open = true;
  place.scrollIntoView();
}

document.getElementById("entry").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = document.getElementById("told");
  told.textContent = "";
  try {
    const headers = { Authorization: `Bearer ${document.getElementById("key").value}` };
    const answer = await fetch("../api/v1/openapi.json", { headers, cache: "no-store" });
    const body = await answer.json();
    if (answer.ok) {
      api = body;
      show();
    } else told.textContent = body.error.message;
  } catch (error) {
    told.textContent = `The gateway cannot be asked: ${error.message}`;
  }
});

document.getElementById("find").addEventListener("input", ({ target }) => {
  const words = target.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const section of main.querySelectorAll("section")) {
    for (const each of section.querySelectorAll(".operation")) {
      each.hidden = !words.every((word) => each.dataset.words.includes(word));
    }
    section.hidden = !section.querySelector(".operation:not([hidden])");
  }
});

addEventListener("keydown", (event) => {
  const find = document.getElementById("find");
  if (event.key === "/" && !event.ctrlKey && !event.metaKey && event.target.tagName !== "INPUT") {
    event.preventDefault();
    find.focus();
  }
});
addEventListener("hashchange", goTo);
addEventListener("beforeprint", () => {
  for (const each of main.querySelectorAll(".operation:not([hidden])")) each.open = true;
});
