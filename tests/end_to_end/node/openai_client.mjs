// OpenAI's client for Node asks the server at OPENAI_BASE_URL; one JSON object says what it heard.
import OpenAI from "openai";

const client = new OpenAI(); // the base URL and the key come from the environment
const [toolName, question, toolResult] = process.argv.slice(2);

const asked = (content) => ({
  model: "demo",
  temperature: 0,
  messages: [{ role: "user", content }],
});
const counting = asked("Count from 1 to 60.");

const whole = await client.chat.completions.create(counting);

let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...counting, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}

const helped = await client.chat.completions.stream(counting).finalContent();

const called = [];
const runner = client.chat.completions.runTools({
  ...asked(question),
  tools: [
    {
      type: "function",
      function: {
        name: toolName,
        parameters: {
          type: "object",
          properties: { city: { type: "string" } },
          required: ["city"],
        },
        parse: JSON.parse,
        function: (given) => {
          called.push(given);
          return toolResult;
        },
      },
    },
  ],
});
const told = await runner.finalContent();

const packed = await client.embeddings.create({ model: "demo", input: ["the cat", "the dog"] });
const plain = await client.embeddings.create({
  model: "demo",
  input: ["the cat", "the dog"],
  encoding_format: "float",
});

const completion = await client.completions.create({ model: "demo", prompt: "one", max_tokens: 3 });

const models = [];
for await (const model of client.models.list()) {
  models.push(model.id);
}

const refused = await client.models.retrieve("gpt-9").catch((error) => error.constructor.name);

console.log(
  JSON.stringify({
    whole: whole.choices[0].message.content,
    streamed,
    helped,
    called,
    told,
    packed: packed.data.map((row) => row.embedding),
    plain: plain.data.map((row) => row.embedding),
    completionTokens: completion.usage.completion_tokens,
    models,
    refused,
  }),
);
