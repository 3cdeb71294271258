// SPDX-License-Identifier: BSD-3-Clause
// Takes batches with libraries that nobody here wrote: standardwebhooks verifies, cloudevents parses and validates.
// Usage: node receiver.mjs SECRET COUNT; prints its port, and at the end a line of JSON.
import http from "node:http";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

const [secret, count] = [process.argv[2], Number(process.argv[3])];
const webhook = new Webhook(secret);
const sequences = [];
let forged = 0;

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts).toString();
    let status = 200;
    try {
      webhook.verify(body, request.headers);
      try {
        webhook.verify(body + " ", request.headers);
        forged++;
      } catch { /* as it must be */ }
      for (const event of HTTP.toEvent({ headers: request.headers, body })) {
        if (!event.validate()) throw new Error(`${event.id} is no CloudEvent`);
        if (event.id !== `epoch-1-${event.sequence}`) throw new Error(`${event.id} has sequence ${event.sequence}`);
        sequences.push(Number(event.sequence));
      }
    } catch (error) {
      console.error(String(error));
      status = 503;
    }
    response.writeHead(status, { "Content-Length": 0 }).end();
    if (sequences.length >= count) {
      console.log(JSON.stringify({ events: sequences.length, ordered: sequences.every((n, i) => n === i + 1), forged }));
      process.exit(0);
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
