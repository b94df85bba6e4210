/** A typed client of Sluice's management API. Paths, parameters and bodies are those of docs/openapi.json. */
import createClient, { type Client, type ClientOptions } from "openapi-fetch";
import type { components, paths } from "./schema.ts";

/** The bodies of the API, by their names in the document: `Schemas["TokenShown"]`. */
export type Schemas = components["schemas"];
export type { paths } from "./schema.ts";

export type SluiceClient = Client<paths>;

export interface SluiceClientOptions extends Omit<ClientOptions, "baseUrl"> {
  /** Where the gateway is, such as `http://127.0.0.1:8080`; what a proxy puts before its paths belongs to it. */
  baseUrl: string;
  /** The admin key, or an API token; a function is asked before each request. */
  key: string | (() => string | Promise<string>);
}

/** The gateway's refusal of a request. */
export class SluiceError extends Error {
  override readonly name = "SluiceError";
  readonly status: number;
  /** Such as `config_error-stale`; docs/access.md has them all. */
  readonly code: string;
  /** The parameter that was wrong. */
  readonly param: string | null;
  /** Of a configuration that was refused. */
  readonly faults: readonly Schemas["FaultBody"][];
  /** Under which the gateway's log has more. */
  readonly requestId: string | null;

  constructor(response: Response, body: unknown) {
    const error = isErrorBody(body) ? body.error : undefined;
    super(error?.message ?? `the gateway answered ${response.status} without saying why`);
    this.status = response.status;
    this.code = error?.code ?? "unknown";
    this.param = error?.param ?? null;
    this.faults = error?.faults ?? [];
    this.requestId = response.headers.get("x-request-id");
  }
}

export function createSluiceClient({ baseUrl, key, ...others }: SluiceClientOptions): SluiceClient {
  const client = createClient<paths>({ ...others, baseUrl: baseUrl.replace(/\/+$/, "") });
  client.use({
    async onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${typeof key === "string" ? key : await key()}`);
      return request;
    },
  });
  return client;
}

interface Result<Data> {
  data?: Data;
  error?: unknown;
  response: Response;
}

/**
 * What was answered, or a thrown {@link SluiceError}: `await orThrow(sluice.GET("/api/v1/health"))`.
 * An answer without a body gives `undefined`.
 */
export async function orThrow<Data>(asked: Promise<Result<Data>>): Promise<Data> {
  const { data, error, response } = await asked;
  if (!response.ok) throw new SluiceError(response, error);
  return data as Data;
}

function isErrorBody(body: unknown): body is Schemas["ErrorBody"] {
  return typeof body === "object" && body !== null && "error" in body && typeof body.error === "object";
}
