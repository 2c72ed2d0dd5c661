// What the page says to the server: one turn as a stream, its health, the limits' headers, failures in a person's words.

/** Why there is no whole answer. `wait` is in seconds, `kind` is "wait", "key", "long" or "bad". */
export class Failure extends Error {
  constructor({ title, text, kind = "bad", wait = 0, id = "", code = "" }) {
    super(title);
    Object.assign(this, { title, text, kind, wait, id, code });
  }
}

const OFFLINE = { title: "No connection to the server", text: "Look whether you are online, then try again." };
const BROKEN = { title: "The answer broke off", text: "The connection ended before the answer did." };

// By the error's name in the body; a missing text is the server's own.
const WORDS = {
  rate_limited: { title: "A short break", kind: "wait", text: "You have sent all the messages that are allowed for now." },
  overloaded: { title: "The model is busy", kind: "wait", text: "Many people are asking at the moment." },
  not_ready: { title: "The model is not ready", kind: "wait" },
  timeout: { title: "The answer took too long", text: "Try again, or ask for something shorter." },
  upstream_error: { title: "The model could not answer", text: "Trying again often helps." },
  context_length_exceeded: { title: "This conversation is too long for the model", kind: "long", text: "Start a new chat, or switch off “Use what was said before”." },
  payload_too_large: { title: "This message is too long" },
  invalid_request: { title: "This message cannot be sent" },
  unauthorized: { title: "This server asks for a key", kind: "key", text: "Enter the API key that its operator gave you. It is kept in this tab only." },
  forbidden: { title: "This key is not accepted", kind: "key" },
  internal_error: { title: "Something went wrong on the server", text: "Its operator can look the request up by the number below." },
};

/** "healthy", "initializing", "degraded" or "offline". */
export async function health() {
  try {
    const answer = await fetch("api/health", { cache: "no-store", signal: AbortSignal.timeout(10_000) });
    return (await answer.json()).status;
  } catch {
    return "offline";
  }
}

/** One turn. `onDelta` gets each piece, `onLimits` the limits; gives the server's whole answer or throws a Failure. */
export async function ask(body, { key, signal, onDelta, onLimits }) {
  const headers = { "Content-Type": "application/json", Accept: "text/event-stream, application/json" };
  if (key) headers.Authorization = `Bearer ${key}`;
  let answer;
  try {
    answer = await fetch("api/chat", { method: "POST", headers, body: JSON.stringify({ ...body, stream: true }), signal });
  } catch (error) {
    throw signal.aborted ? error : new Failure(OFFLINE);
  }
  onLimits(limits(answer.headers));
  if (!answer.ok) throw await refusal(answer);
  for await (const { name, data } of events(answer.body, signal)) {
    if (name === "message") onDelta(parsed(data).delta ?? "");
    else if (name === "done") return parsed(data);
    else if (name === "error") throw failure(parsed(data), 0);
  }
  throw new Failure({ ...BROKEN, id: answer.headers.get("x-request-id") ?? "" });
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch {
    throw new Failure(BROKEN);
  }
}

async function refusal(answer) {
  const wait = Number(answer.headers.get("retry-after")) || 0;
  const body = await answer.json().catch(() => ({}));
  const id = body.request_id ?? answer.headers.get("x-request-id");
  return failure({ message: `The server answered ${answer.status}.`, ...body, request_id: id }, wait);
}

function failure({ error: code = "", message = "", request_id: id = "" }, wait) {
  const words = WORDS[code] ?? { title: "This did not work" };
  return new Failure({ text: message, ...words, code, wait, id });
}

// Server-Sent Events: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let name = "message";
  let data = [];
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw signal.aborted ? error : new Failure(BROKEN);
    });
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      if (line === "") {
        if (data.length) yield { name, data: data.join("\n") };
        [name, data] = ["message", []];
      } else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      else if (line.startsWith("event:")) name = line.slice(6).trim();
    }
  }
}

/** The tightest limit, `{left, of, window, reset}` in messages and seconds, from the RateLimit headers; null without. */
export function limits(headers) {
  const policies = new Map(items(headers.get("ratelimit-policy")).map((item) => [item.name, item]));
  const all = items(headers.get("ratelimit")).map(({ name, r, t }) => {
    const { q = r, w = t } = policies.get(name) ?? {};
    return { left: r, of: q, window: w, reset: t };
  });
  all.sort((a, b) => a.left - b.left || b.reset - a.reset);
  return all[0] ?? null;
}

// "name";a=1;b=2, "other";a=3
function items(text) {
  return (text ?? "").split(",").filter((part) => part.trim()).map((part) => {
    const [name, ...parameters] = part.split(";").map((piece) => piece.trim());
    const pairs = parameters.map((pair) => pair.split("=")).map(([key, value]) => [key, Number(value)]);
    return { name: name.replaceAll('"', ""), ...Object.fromEntries(pairs) };
  });
}
