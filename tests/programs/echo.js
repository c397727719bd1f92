// A program for `--exec`, in Node: answers each request after the time that it asks for, so in any
// order. One JSON line in, one JSON line out.
const { createInterface } = require("node:readline");

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const waiting = new Map();

createInterface({ input: process.stdin }).on("line", (text) => {
  const { id, attempt, deadline_ms, request, cancel, ...rest } = JSON.parse(text);
  if (cancel) {
    console.error(`told to cancel ${id}`);
    clearTimeout(waiting.get(id));
    say({ id, error: { message: "cancelled" } });
    return;
  }
  switch (request.do) {
    case "progress":
      say({ id, progress: { fraction: 0.5, message: "half way" } });
      break;
    case "refuse":
      say({ id, error: { code: "bad-text", message: "no", details: { field: "text" } } });
      return;
    case "later":
      say({ id, error: { message: "not now", retryable: true, after_s: 0.5 } });
      return;
    case "die":
      process.exit(3);
    case "kill":
      process.kill(process.pid, "SIGKILL");
      return;
    case "hang":
      for (;;);
    case "misfit":
      say({ id, reply: { text: 7 } });
      return;
    case "noise":
      process.stdout.write("this is no JSON\n\n" + JSON.stringify({ id: "nobody", reply: {} }) + "\n");
      process.stdout.write(JSON.stringify({ id, reply: { text: "x".repeat(5 << 20) } }) + "\n");
      break;
    case "environment":
      request.text = Object.keys(process.env).filter((name) => name.startsWith("BRIDGE_")).join();
      break;
    case "facts":
      request.text = JSON.stringify({ attempt, in_s: (deadline_ms - Date.now()) / 1000, ...rest });
      break;
  }
  const answer = () => say({ id, reply: { text: request.text, request_id: id, pid: process.pid } });
  waiting.set(id, setTimeout(answer, (request.sleep_s || 0) * 1000));
});
