// An HTTP application that knows nothing of Kafka or of the bridge. It binds loopback, prints its
// port, and answers POSTs; GET /facts tells what it has seen.
//   node app.mjs [PORT]
import { createServer } from "node:http";

const facts = { connections: 0, most: 0, open: 0, left: 0, seen: [] };
const wait = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));

// What it is for: each takes the JSON of a request and gives the JSON of a reply.
const routes = {
  "/greeter": (ask, request, response) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ greeting: `Hello, ${ask.name}` }));
  },
  "/echo": async (ask, request, response) => {
    await wait(ask.sleep_s ?? 0);
    const reply = { text: ask.text, request_id: request.headers["bridge-request-id"], pid: process.pid };
    if (ask.do === "refuse") {
      response.writeHead(422, { "content-type": "application/problem+json" });
      response.end(JSON.stringify({ code: "teapot", detail: "short and stout" }));
    } else if (ask.do === "misfit") {
      response.end(JSON.stringify({ ...reply, pid: "none" }));
    } else {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(reply));
    }
  },
  "/busy": (ask, request, response) => {
    if (request.headers["bridge-attempt"] === "1") {
      response.writeHead(503, { "retry-after": "1" });
      return response.end();
    }
    return routes["/echo"](ask, request, response);
  },
  "/headed": (ask, request, response) => {
    const { "x-tenant": tenant, "x-other": other, traceparent } = request.headers;
    const heard = Object.entries({ "x-tenant": tenant, "x-other": other, traceparent });
    response.setHeader("x-cost", "7").setHeader("x-other", "no").setHeader("content-type", "application/json");
    response.end(JSON.stringify({ heard: Object.fromEntries(heard.filter(([, value]) => value)) }));
  },
  "/lines": async (ask, request, response) => {
    response.setHeader("content-type", "application/x-ndjson");
    for (let number = 0; number < ask.to; number++) {
      response.write(JSON.stringify({ number, text: "x" }) + "\n");
      await wait(ask.sleep_s ?? 0);
    }
    response.end();
  },
  "/misfits": (ask, request, response) => response.write("{}\n"), // and never ends
  "/events": async (ask, request, response) => {
    response.setHeader("content-type", "text/event-stream");
    for (let number = 0; number < ask.to; number++) {
      response.write(`event: progress\ndata: {"fraction": ${number / ask.to}, "message": "on"}\n\n`);
      response.write(`data: {"number": ${number},\ndata: "text": "x"}\n\n: still here\n\n`);
      await wait(ask.sleep_s ?? 0);
    }
    response.end();
  },
  "/oneway": (ask, request, response) => {
    response.statusCode = 204;
    response.end();
  },
  // Answers as it is told to: status, headers, pieces of the body with a wait between them.
  "/say": async (ask, request, response) => {
    response.writeHead(ask.status ?? 200, { "content-type": "application/json", ...ask.headers });
    for (const piece of ask.pieces ?? [ask.body ?? "{}"]) {
      response.write(piece);
      await wait(ask.wait_s ?? 0);
    }
    for (let n = 0; n < (ask.mib ?? 0); n++) response.write(" ".repeat(1 << 20));
    if (ask.cut) response.socket.destroy();
    else if (!ask.hang) response.end();
  },
};

const server = createServer(async (request, response) => {
  if (request.url === "/facts") return response.end(JSON.stringify(facts));
  response.on("close", () => { if (!response.writableFinished) facts.left++; });
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks).toString();
  facts.seen.push({ method: request.method, url: request.url, headers: request.headers, body });
  const route = routes[request.url.split("?")[0]];
  if (route) return route(JSON.parse(body), request, response);
  response.statusCode = 404;
  response.end("no such path");
});
server.on("connection", (socket) => {
  facts.connections++;
  facts.most = Math.max(facts.most, ++facts.open);
  socket.on("close", () => facts.open--);
});
server.listen(Number(process.argv[2] ?? 0), "127.0.0.1", () => console.log(server.address().port));
