// The official OpenAI SDK for Node does what an application does, and says what it saw as one JSON object.
// Usage: node sdk.mjs NODE_MODULES BASE_URL API_KEY MODEL
import { createRequire } from "node:module";

const [modules, baseURL, apiKey, model] = process.argv.slice(2);
const { OpenAI } = createRequire(`${modules}/`)("openai");
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Hello from Node" }];

const answer = await client.chat.completions.create({ model, messages });

const pieces = [];
let usage = null;
const options = { include_usage: true };
for await (const chunk of await client.chat.completions.create({ model, messages, stream: true, stream_options: options })) {
  pieces.push(chunk.choices[0]?.delta.content ?? "");
  usage = chunk.usage ?? usage;
}

let failure = null;
try {
  await client.chat.completions.create({ model: "gpt-77", messages });
} catch (error) {
  failure = [error.constructor.name, error.status, error.code];
}

let cut = null;
try {
  for await (const _ of await client.chat.completions.create({ model: "echo/cut", messages, stream: true }));
} catch (error) {
  cut = [error.constructor.name, error.code];
}

const models = (await client.models.list()).data.map(({ id }) => id);
console.log(JSON.stringify({ answer: answer.choices[0].message.content, model: answer.model, pieces, usage, failure, cut, models }));
