// oidc-provider on a port of its own, strict: PKCE is demanded, refresh tokens are good once, and one that comes again ends
// all that came of its sign-in. Nobody signs in by hand: the page of an interaction answers by itself.
// Usage: node server.mjs NODE_MODULES < SETTINGS, which are {"clients": [...], "lifetimes": {"AccessToken": 60, ...},
//                                                            "routes": {"token": "/token", ...}}
//
// Beside the protocol, for the tests:
//   GET  /test/grants          how often tokens were given and refused: {"refresh_token": {"given": 1, "refused": 0}, ...}
//   POST /test/answers         the next answers of a path, in the place of its own:
//                              {"path": "/token", "status": 503, "headers": {}, "body": "", "times": 1}
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const [modules] = process.argv.slice(2);
const { Provider } = await import(pathToFileURL(createRequire(`${modules}/`).resolve("oidc-provider")).href);

const text = async (stream) => {
  let whole = "";
  for await (const piece of stream) whole += piece;
  return whole;
};
const { clients, lifetimes, routes } = JSON.parse(await text(process.stdin));

const server = createServer();
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const url = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(url, {
  clients,
  routes,
  scopes: ["openid", "email", "offline_access", "models.read", "models.write"],
  claims: { openid: ["sub"], email: ["email"] },
  // The address stands in the ID token, as the large ones have it.
  conformIdTokenClaims: false,
  findAccount: (_ctx, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com` }) }),
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    introspection: { enabled: true },
    clientCredentials: { enabled: true },
  },
  pkce: { required: () => true },
  issueRefreshToken: async (_ctx, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: true,
  ttl: { AccessToken: 3600, ClientCredentials: 600, DeviceCode: 600, AuthorizationCode: 60, ...lifetimes },
  interactions: { url: (_ctx, interaction) => `/interaction/${interaction.uid}` },
});

const grants = {};
const count = (ctx, how) => {
  const grant = ctx.oidc.params?.grant_type ?? "none";
  grants[grant] ??= { given: 0, refused: 0 };
  grants[grant][how] += 1;
};
provider.on("grant.success", (ctx) => count(ctx, "given"));
provider.on("grant.error", (ctx) => count(ctx, "refused"));
provider.on("server_error", (_ctx, error) => console.error(error));

// The person: `x-person` of the browser is who they are, `x-answer: deny` that they say no.
const interaction = async (request, response) => {
  const details = await provider.interactionDetails(request, response);
  if (request.headers["x-answer"] === "deny") {
    return provider.interactionFinished(request, response, { error: "access_denied" });
  }
  const accountId = request.headers["x-person"] ?? "ada";
  const grant = new provider.Grant({ accountId, clientId: details.params.client_id });
  grant.addOIDCScope(details.params.scope ?? "openid");
  return provider.interactionFinished(request, response, {
    login: { accountId },
    consent: { grantId: await grant.save() },
  });
};

const answers = [];
const callback = provider.callback();
server.on("request", async (request, response) => {
  try {
    const path = new URL(request.url, url).pathname;
    const planned = answers.find((answer) => answer.path === path);
    if (path === "/test/grants") {
      response.end(JSON.stringify(grants));
    } else if (path === "/test/answers") {
      answers.push({ status: 200, headers: {}, body: "", times: 1, ...JSON.parse(await text(request)) });
      response.end();
    } else if (planned) {
      await text(request);
      planned.times -= 1;
      if (planned.times === 0) answers.splice(answers.indexOf(planned), 1);
      response.writeHead(planned.status, planned.headers).end(planned.body);
    } else if (path.startsWith("/interaction/")) {
      await interaction(request, response);
    } else {
      callback(request, response);
    }
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
});
console.log(`listening on ${url}`);
