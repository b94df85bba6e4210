/**
 * Makes a token, shows it, and revokes it:
 *
 *     SLUICE_ADMIN_KEY=… node example.ts http://127.0.0.1:8080
 */
import { createSluiceClient, orThrow, SluiceError } from "./src/index.ts";

declare const process: { argv: string[]; env: Record<string, string | undefined> };

const sluice = createSluiceClient({
  baseUrl: process.argv[2] ?? "http://127.0.0.1:8080",
  key: process.env["SLUICE_ADMIN_KEY"] ?? "",
});

const health = await orThrow(sluice.GET("/api/v1/health"));
console.log(`revision ${health.revision.slice(0, 12)}, up for ${Math.round(health.uptime_seconds)} s`);

const made = await orThrow(sluice.POST("/api/v1/tokens", { body: { name: "from-typescript", models: ["gpt-*"] } }));
console.log(`made ${made.name} (${made.scope}) for ${made.models.join(", ")}`);

try {
  await orThrow(sluice.POST("/api/v1/tokens", { body: { name: "from-typescript" } }));
} catch (error) {
  if (!(error instanceof SluiceError)) throw error;
  console.log(`refused: ${error.status} ${error.code}`);
}

// The version that was read: a change of somebody else in between would be refused with 412.
const { response } = await sluice.GET("/api/v1/tokens/{id}", { params: { path: { id: made.id } } });
await orThrow(
  sluice.DELETE("/api/v1/tokens/{id}", {
    params: { path: { id: made.id }, header: { "If-Match": response.headers.get("ETag") ?? "" } },
  }),
);
const left = await orThrow(sluice.GET("/api/v1/tokens"));
console.log(`revoked; ${left.data.filter((token) => token.id === made.id).length} left of it`);
