// A sleep's events as they happen. EventSource cannot send a key, so the stream is read by fetch, and taken up behind the last event
// that came, with Last-Event-ID, whenever it breaks off.

import { Problem, passes, path, sent } from "./api.js";

const LONGEST_PAUSE = 30_000;
const SHORTEST_PAUSE = 500;

// Calls `told` with each event once, in order; returns when the sleep has ended, or `signal` says so. Throws a Problem that would come
// again: no right to read, no such sleep.
export async function follow(sleep, { after = 0, signal, told }) {
  let last = after;
  let pause = SHORTEST_PAUSE;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", "Last-Event-ID": String(last) };
      const answer = await sent(path("sleeps", sleep, "events"), { headers, signal });
      for await (const message of messages(answer.body)) {
        pause = SHORTEST_PAUSE;
        if (message.event === "done") return;
        if (message.id && message.data) {
          last = Number(message.id);
          told(JSON.parse(message.data));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Problem && !passes(error)) throw error;
    }
    await rest(pause, signal);
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

// The messages of a stream: fields by name, as the HTML standard has them. Comments (heartbeats) are passed over.
export async function* messages(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  let message = {};
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line === "" || line === "\r") {
        if (Object.keys(message).length) yield message;
        message = {};
      } else if (!line.startsWith(":")) {
        const [name, ...rest] = line.split(":");
        message[name] = (name in message ? `${message[name]}\n` : "") + rest.join(":").replace(/^ /, "").replace(/\r$/, "");
      }
    }
  }
}

// Nobody looks at a page in the background: it asks for nothing until somebody does.
export function seen(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", resolve, { once: true });
    signal.addEventListener("abort", resolve, { once: true });
  });
}

export function rest(milliseconds, signal) {
  return new Promise((resolve) => {
    const over = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", over);
      resolve();
    };
    const timer = setTimeout(over, milliseconds);
    signal.addEventListener("abort", over);
  });
}
