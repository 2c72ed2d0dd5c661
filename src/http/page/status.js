// The status page: asks for the JSON every two seconds and draws the differences. Nothing is kept beyond this tab.

import { chart, key, number, percentile, spark, time } from "./draw.js";

const EVERY_MS = 2000;
const PLACES = 151; // five minutes
const SPANS = [[31, "1 min"], [76, "2.5 min"], [PLACES, "5 min"]]; // a young page shows less, larger
const SMOOTH = 5; // percentiles are of the last ten seconds
const SILENT_MS = 2000; // an idle loop turns twice a second

const $ = (id) => document.getElementById(id);
const samples = []; // answers, oldest first, with `at` in our own clock
const history = {}; // name -> values, oldest first
let paused = false;
let timer = 0;

const TILES = [
  ["Requests", "requests", (value) => [number(value), "per second"], "four"],
  ["In flight", "in_flight", (value) => [number(value), "requests"], "four"],
  ["Failed, 5xx", "5xx", (value) => [number(value), "per second"], "three"],
  ["Chat, first token", "first-50", (value) => withMedian(time(value)), "one"],
  ["Chat, answer", "chat-50", (value) => withMedian(time(value)), "one"],
  ["Engine", "tokens", (value) => [number(value), "tokens per second"], "two"],
];
const withMedian = ([value, unit]) => [value, `${unit} median`];

const inTime = (value) => time(value).join("\u00a0");
const rate = (value) => `${number(value)}/s`;
const median = (name) => ({ name: "median", from: `${name}-50`, className: "four" });
const slowest = (name) => ({ name: "95 of 100 within", from: `${name}-95`, className: "two", dashed: true });
const CHARTS = [
  {
    title: "Requests per second, by their answer", label: rate, least: 1, stacked: true,
    series: [
      { name: "answered (2xx, 3xx)", from: "ok", className: "one" },
      { name: "refused (4xx)", from: "4xx", className: "two" },
      { name: "failed (5xx)", from: "5xx", className: "three" },
    ],
  },
  { title: "Chat: time to the first token", label: inTime, least: 1, series: [median("first"), slowest("first")] },
  { title: "Chat: time to the whole answer", label: inTime, least: 1, series: [median("chat"), slowest("chat")] },
  { title: "Everything else: time to the answer", label: inTime, least: 1, series: [median("other"), slowest("other")] },
];

function copy(id) {
  return $(id).content.firstElementChild.cloneNode(true);
}

for (const [title, name] of TILES) {
  const tile = copy("tile");
  tile.dataset.name = name;
  tile.querySelector("h3").textContent = title;
  $("tiles").append(tile);
}
for (const one of CHARTS) {
  one.figure = copy("chart");
  one.figure.querySelector("figcaption").textContent = one.title;
  for (const line of one.series) {
    line.shown = document.createElement("li");
    line.shown.append(key(line.className, line.dashed), document.createElement("span"));
    one.figure.querySelector(".legend").append(line.shown);
  }
  $("charts").append(one.figure);
}

function note(name, value) {
  const values = (history[name] ??= []);
  values.push(value);
  values.splice(0, values.length - PLACES);
}

const sum = (items, of) => items.reduce((total, item) => total + of(item), 0);
const total = (sample, name) => (name === "ok" ? sample.requests["2xx"] + sample.requests["3xx"] : sample.requests[name]);

function add(sample) {
  const last = samples.at(-1);
  // A server that was started anew counts from zero.
  if (last && sum(Object.values(sample.requests), Number) < sum(Object.values(last.requests), Number)) {
    samples.length = 0;
    Object.values(history).forEach((values) => (values.length = 0));
  }
  samples.push(sample);
  samples.splice(0, samples.length - SMOOTH - 1);
  note("in_flight", sum(sample.workers, (worker) => worker.in_flight));
  if (samples.length < 2) return;
  const seconds = (sample.now_ms - samples.at(-2).now_ms) / 1000 || 1;
  const since = (read) => Math.max(0, read(sample) - read(samples.at(-2))) / seconds;
  for (const name of ["ok", "4xx", "5xx"]) note(name, since((one) => total(one, name)));
  note("requests", since((one) => sum(Object.values(one.requests), Number)));
  note("tokens", since((one) => one.engine_counters.completion_tokens));
  const groups = { first: ["first_tokens", "chat"], chat: ["durations", "chat"], other: ["durations", "other"] };
  for (const [name, [table, group]] of Object.entries(groups)) {
    const counts = sample[table][group].map((count, at) => count - samples[0][table][group][at]);
    for (const part of [50, 95]) note(`${name}-${part}`, percentile(sample.bounds_us, counts, part / 100));
  }
  for (const worker of sample.workers) {
    const before = samples.at(-2).workers.find((one) => one.slot === worker.slot);
    note(`worker-${worker.slot}`, before ? Math.max(0, worker.requests - before.requests) / seconds : 0);
  }
}

function draw() {
  const sample = samples.at(-1);
  if (!sample) return;
  const [places, span] = SPANS.find(([count]) => history.in_flight.length <= count);
  for (const [, name, words, className] of TILES) {
    const tile = document.querySelector(`[data-name="${name}"]`);
    const values = history[name] ?? [];
    const [value, unit] = words(values.at(-1));
    tile.querySelector("strong").textContent = value;
    tile.querySelector(".unit").textContent = unit;
    tile.hidden = name === "tokens" && sample.engine === "absent";
    spark(tile.querySelector("svg"), values, places, className);
  }
  for (const one of CHARTS) drawChart(one, places, span);
  drawWorkers(sample, places);
  drawCards(sample);
}

function drawChart({ title, label, least, stacked, series, figure }, places, span) {
  const lines = series.map((line) => ({ ...line, values: history[line.from] ?? [] }));
  for (const { name, values, shown } of lines) shown.lastChild.textContent = `${name}: ${label(values.at(-1) ?? null)}`;
  const svg = figure.querySelector("svg.chart");
  svg.setAttribute("aria-label", `${title}. Now ${lines.map(({ name, values }) => `${name} ${label(values.at(-1) ?? null)}`).join(", ")}.`);
  chart(svg, { series: lines, places, stacked, label, least, span });
}

const WORDS = { ready: ["ready", "good"], booting: ["booting", "warn"], draining: ["draining", "warn"] };

function drawWorkers(sample, places) {
  const list = $("workers");
  while (list.children.length > sample.workers.length) list.lastChild.remove();
  while (list.children.length < sample.workers.length) list.append(copy("worker"));
  sample.workers.forEach((worker, at) => {
    const item = list.children[at];
    const silent = worker.silent_ms ?? 0;
    const [word, state] = silent > SILENT_MS ? [`silent for ${age(silent)}`, "bad"] : (WORDS[worker.state] ?? [worker.state, ""]);
    item.querySelector(".name").textContent = `Worker ${worker.slot}`;
    item.querySelector(".badge").textContent = word;
    item.querySelector(".badge").dataset.state = state;
    const values = history[`worker-${worker.slot}`] ?? [];
    const picture = item.querySelector("svg");
    picture.setAttribute("aria-label", `Requests per second of worker ${worker.slot} over the last minutes; now ${number(values.at(-1))}`);
    spark(picture, values, places, "four");
    rows(item.querySelector("dl"), [
      ["Requests", rate(values.at(-1) ?? 0)],
      ["In flight", number(worker.in_flight)],
      ["Connections", number(worker.connections)],
      ["Loop turned", `${inTime(silent)} ago`, silent > SILENT_MS],
    ]);
    item.querySelector(".small").textContent = `pid ${worker.pid}, up ${age(worker.age_ms)}`;
  });
}

function drawCards(sample) {
  const { engine_counters: engine, log, limits, verdicts, security, restarts } = sample;
  const few = (pairs) => pairs.filter(([, value]) => value > 0);
  const named = (table) => few(Object.entries(table)).map(([name, value]) => [name.replaceAll("_", " "), number(value)]);
  const ends = Object.entries(restarts).flatMap(([process, causes]) => Object.entries(causes).map(([cause, value]) => [`${process}, ${cause}`, number(value)]));
  const cards = [
    ["Answers", Object.entries(sample.requests).map(([name, value]) => [name, number(value)])],
    ["Model", sample.engine === "absent" ? [["Engine", "none: an upstream answers"]] : [
      ["Engine", sample.engine, sample.engine === "down"], ["In slots", number(engine.active_requests)],
      ["Waiting", number(engine.queued_requests)], ["Requests", number(engine.requests)],
      ["Tokens read", number(engine.prompt_tokens)], ["Tokens written", number(engine.completion_tokens)],
      ["Refused, queue full", number(engine.refused_requests), engine.refused_requests > 0],
    ]],
    ["Limiter", limits ? [...named(verdicts), ...few([["places taken over", limits.evicted], ["no room", limits.overflowed]])] : [["Limits", "off"]]],
    ["Log records", [
      ["Written", number(log.written)], ["Under way", number(Math.max(0, log.emitted - log.written - log.dropped - log.lost))],
      ["Dropped", number(log.dropped), log.dropped > 0], ["Lost with a process", number(log.lost), log.lost > 0],
    ]],
    ["Security events", named(security)],
    ["Processes replaced", ends],
  ];
  const list = $("cards");
  cards.forEach(([title, pairs], at) => {
    if (!list.children[at]) list.append(copy("card"));
    list.children[at].querySelector("h3").textContent = title;
    rows(list.children[at].querySelector("dl"), pairs.length ? pairs : [["None", ""]]);
  });
}

function rows(list, pairs) {
  while (list.children.length > 2 * pairs.length) list.lastChild.remove();
  while (list.children.length < 2 * pairs.length) list.append(document.createElement("dt"), document.createElement("dd"));
  pairs.forEach(([name, value, bad], at) => {
    list.children[2 * at].textContent = name;
    list.children[2 * at + 1].textContent = value;
    list.children[2 * at + 1].dataset.state = bad ? "bad" : "";
  });
}

function age(ms) {
  const seconds = Math.floor(ms / 1000);
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
}

function tell(state, text) {
  $("health").dataset.state = state;
  if ($("health-word").textContent !== text) $("health-word").textContent = text;
}

function judge(sample) {
  const silent = sample.workers.filter((worker) => (worker.silent_ms ?? 0) > SILENT_MS).length;
  const ready = sample.workers.filter((worker) => worker.state === "ready").length - silent;
  const draining = sample.workers.filter((worker) => worker.state === "draining").length;
  const engine = sample.engine === "absent" || sample.engine === "ready" ? "" : `, engine ${sample.engine}`;
  const text = `${ready} ${ready === 1 ? "worker" : "workers"} ready${draining ? `, ${draining} draining` : ""}${silent ? `, ${silent} silent` : ""}${engine}`;
  tell(ready < 1 ? "bad" : engine || silent ? "warn" : "good", text);
}

async function look() {
  clearTimeout(timer);
  try {
    const answer = await fetch("status", { headers: { Accept: "application/json" }, cache: "no-store", signal: AbortSignal.timeout(5000) });
    if (!answer.ok) throw new Error(String(answer.status));
    const sample = await answer.json();
    $("version").textContent = sample.version;
    add(sample);
    judge(sample);
    draw();
  } catch {
    tell("bad", "No answer: this page goes on asking");
  }
  if (!paused && !document.hidden) timer = setTimeout(look, EVERY_MS);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) clearTimeout(timer);
  else look();
});
document.addEventListener("visibilitychange", () => (document.hidden || paused ? clearTimeout(timer) : look()));
new ResizeObserver(() => requestAnimationFrame(draw)).observe($("charts"));
look();
