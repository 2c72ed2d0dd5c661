// The chat page. `state` is what a reload must keep; everything shown is drawn from it. Deliberately absent: a framework.

import { ask, Failure, health } from "./talk.js";
import { copy, render } from "./text.js";

const CHARACTERS_MAX = 10_000; // of a message, as the server counts them
const PAIRS_MAX = 100; // of a history that is sent
const STORE = "chatcorn";
const HEALTH_WORDS = {
  healthy: ["Ready", ""],
  initializing: ["Loading…", "The model is being loaded. This takes a few seconds; you can write your message already."],
  degraded: ["Model away", "The model cannot be reached at the moment. This page keeps looking for it."],
  offline: ["Offline", "The server cannot be reached. This page keeps trying."],
};

const $ = (id) => document.getElementById(id);
const message = $("message");
// A turn: {user, reply, reasoning, state: writing | done | stopped | failed, failure, figures}.
const state = restored();
let running = null; // the AbortController of the turn under way
let serverHealth = "unknown";
let waitUntil = state.wait; // no message before this time, in ms
let limit = null;
let looking = 0; // the timer of the next look at the server's health
let due = null; // the turn that the next frame draws
const places = new WeakMap(); // turn → its element

start();

function start() {
  state.turns.forEach(show);
  message.value = state.draft;
  $("remember").checked = state.mode === "relevant";
  $("form").addEventListener("submit", (event) => { event.preventDefault(); submit(); });
  $("stop").addEventListener("click", stop);
  $("new").addEventListener("click", newChat);
  $("down").addEventListener("click", () => scrollDown("smooth"));
  $("remember").addEventListener("change", () => { state.mode = $("remember").checked ? "relevant" : "fresh"; keep(); });
  message.addEventListener("input", () => { state.draft = message.value; refresh(); });
  message.addEventListener("keydown", onEnter);
  document.addEventListener("keydown", onShortcut);
  addEventListener("pagehide", keep);
  addEventListener("scroll", refreshDown, { passive: true });
  addEventListener("online", look);
  for (const starter of document.querySelectorAll(".starter")) {
    starter.addEventListener("click", () => { message.value = starter.textContent; submit(); });
  }
  setInterval(tick, 500);
  refresh();
  scrollDown();
  look();
}

function restored() {
  const empty = { session: "", mode: "relevant", diverged: false, turns: [], draft: "", key: "", wait: 0 };
  try {
    const state = { ...empty, ...JSON.parse(sessionStorage.getItem(STORE)) };
    for (const turn of state.turns) if (turn.state === "writing") turn.state = "stopped";
    return state;
  } catch {
    return empty;
  }
}

function keep() {
  try {
    sessionStorage.setItem(STORE, JSON.stringify({ ...state, turns: state.turns.slice(-PAIRS_MAX) }));
  } catch {
    // Storage is full or forbidden: the chat goes on, it is just not there after a reload.
  }
}

// --- what a person does ---

function onEnter(event) {
  const newLine = event.shiftKey || matchMedia("(pointer: coarse)").matches;
  if (event.key !== "Enter" || event.isComposing || newLine) return;
  event.preventDefault();
  submit();
}

function onShortcut(event) {
  if (event.key === "Escape" && running) stop();
  if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    newChat();
  }
}

function submit() {
  const user = message.value.trim();
  if (!user || !maySend() || characters(user) > CHARACTERS_MAX) return;
  message.value = state.draft = "";
  message.focus();
  const turn = { user };
  state.turns.push(turn);
  show(turn);
  converse(turn);
}

function stop() {
  running?.abort();
  message.focus();
}

function newChat() {
  running?.abort();
  Object.assign(state, { session: "", diverged: false, turns: [] });
  $("talk").replaceChildren();
  say("New chat");
  keep();
  refresh();
  message.focus();
}

function again(turn) {
  if (!maySend()) return;
  // What the server stored holds the turn that is now done over; from here on the page sends what it shows.
  state.diverged = true;
  message.focus();
  converse(turn);
}

// --- a turn ---

async function converse(turn) {
  const before = state.turns.slice(0, state.turns.indexOf(turn)).filter((earlier) => earlier.reply);
  Object.assign(turn, { reply: "", reasoning: "", state: "writing", failure: null, figures: "" });
  const control = running = new AbortController();
  say("Chatcorn is answering");
  draw(turn);
  refresh();
  scrollDown();
  keep();
  try {
    const answer = await ask(asked(turn, before), {
      key: state.key,
      signal: control.signal,
      onLimits: (seen) => { limit = seen && { ...seen, until: Date.now() + seen.reset * 1000 }; },
      onDelta: (delta) => { turn.reply += delta; soon(turn); },
    });
    if (state.turns.includes(turn)) state.session = answer.session_id;
    Object.assign(turn, { reply: answer.message, reasoning: answer.reasoning ?? "", state: "done", figures: figures(answer) });
    say(answer.message);
  } catch (error) {
    failed(turn, error, control);
  }
  if (running === control) running = null;
  const follow = atEnd();
  draw(turn);
  keep();
  refresh();
  if (turn.failure?.kind === "key") places.get(turn).querySelector(".key input").focus();
  if (follow) scrollDown();
}

function asked(turn, before) {
  const body = { message: turn.user, context_mode: state.mode };
  if (state.session) body.session_id = state.session;
  if (state.mode === "relevant" && before.length && (state.diverged || !state.session)) {
    body.history = before.slice(-PAIRS_MAX).map(({ user, reply }) => [user, reply]);
  }
  return body;
}

function failed(turn, error, control) {
  if (control.signal.aborted) {
    turn.state = "stopped";
    say("Stopped");
    return;
  }
  const { title, text, kind, wait, id, code } = error instanceof Failure ? error : new Failure({ title: "This did not work", text: "Try again." });
  if (!(error instanceof Failure)) console.error(error);
  turn.state = "failed";
  turn.failure = { title, text, kind, id, until: wait ? Date.now() + wait * 1000 : 0 };
  if (code === "rate_limited") waitUntil = state.wait = turn.failure.until;
  $("alarm").textContent = `${title}. ${text}${wait ? ` You can go on in ${duration(wait)}.` : ""}`;
  if (code === "not_ready" || !code) look();
}

function figures({ performance: seen = {}, metadata = {} }) {
  const parts = [];
  if (metadata.model) parts.push(metadata.model);
  if (seen.completion_tokens) parts.push(`${seen.completion_tokens} token${seen.completion_tokens === 1 ? "" : "s"}`);
  if (seen.tokens_per_second) parts.push(`${Math.round(seen.tokens_per_second)} per second`);
  else if (seen.latency_seconds) parts.push(`${seen.latency_seconds.toFixed(1)} s`);
  return parts.join(" · ") + (metadata.finish_reason === "length" ? " · cut off at the length limit" : "");
}

// --- drawing ---

function soon(turn) {
  if (!due) requestAnimationFrame(() => {
    const follow = atEnd();
    if (due.state === "writing") draw(due);
    due = null;
    if (follow) scrollDown();
    refreshDown();
  });
  due = turn;
}

function show(turn) {
  const place = $("turn-template").content.firstElementChild.cloneNode(true);
  places.set(turn, place);
  place.querySelector(".said .text").textContent = turn.user;
  const copyButton = place.querySelector(".copy");
  copyButton.addEventListener("click", () => copy(copyButton, turn.reply));
  for (const button of place.querySelectorAll(".again, .retry")) button.addEventListener("click", () => again(turn));
  place.querySelector(".fresh").addEventListener("click", newChat);
  place.querySelector(".key").addEventListener("submit", (event) => {
    event.preventDefault();
    state.key = place.querySelector(".key input").value.trim();
    again(turn);
  });
  $("talk").append(place);
  draw(turn);
}

function draw(turn) {
  const place = places.get(turn);
  const part = (selector) => place.querySelector(selector);
  const ended = turn.state !== "writing";
  const reply = part(".reply");
  reply.hidden = turn.state === "failed" && !turn.reply;
  reply.dataset.state = turn.state ?? "writing";
  part(".thinking").hidden = ended || turn.reply !== "";
  part(".reasoning").hidden = !turn.reasoning;
  part(".reasoning p").textContent = turn.reasoning ?? "";
  render(part(".reply .text"), turn.reply ?? "");
  part(".note").hidden = turn.state !== "stopped" && !(turn.state === "done" && !turn.reply);
  part(".note").textContent = turn.state === "stopped" ? "Stopped." : "The model answered with nothing.";
  part(".tools").hidden = !ended || turn.state === "failed";
  part(".copy").hidden = !turn.reply || !navigator.clipboard;
  part(".again").textContent = turn.state === "stopped" ? "Try again" : "Answer again";
  part(".figures").textContent = turn.figures ?? "";
  drawFailure(part(".failure"), turn.failure);
}

function drawFailure(box, failure) {
  box.hidden = !failure;
  if (!failure) return;
  box.dataset.kind = failure.kind;
  box.querySelector("h3").textContent = failure.title;
  box.querySelector(".key").hidden = failure.kind !== "key";
  box.querySelector(".fresh").hidden = failure.kind !== "long";
  box.querySelector(".id").hidden = !failure.id || failure.kind !== "bad";
  box.querySelector(".id code").textContent = failure.id;
  drawWait(box, failure);
}

function drawWait(box, failure) {
  const left = Math.ceil(((failure.until ?? 0) - Date.now()) / 1000);
  const waiting = left > 0 ? ` You can go on in ${duration(left)}.` : failure.until ? "You can go on now." : "";
  const retry = box.querySelector(".retry");
  box.querySelector(".what").textContent = (failure.until && left <= 0 ? "" : failure.text) + waiting;
  retry.hidden = failure.kind === "key";
  retry.disabled = left > 0 || !maySend();
}

// Everything beside the conversation.
function refresh() {
  const last = state.turns.at(-1);
  const count = characters(message.value);
  $("welcome").hidden = state.turns.length > 0;
  $("talk-title").hidden = state.turns.length === 0;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("count").hidden = count < CHARACTERS_MAX * 0.9;
  $("count").textContent = `${count.toLocaleString("en")} of ${CHARACTERS_MAX.toLocaleString("en")} characters`;
  $("count").toggleAttribute("data-over", count > CHARACTERS_MAX);
  for (const turn of state.turns) {
    const place = places.get(turn);
    place.querySelector(".again").hidden = turn !== last;
    place.querySelector(".actions").hidden = turn !== last;
    if (turn.failure) drawWait(place.querySelector(".failure"), turn.failure);
  }
  refreshSend(count);
  refreshLimit();
  refreshDown();
}

function refreshSend(count) {
  const left = Math.ceil((waitUntil - Date.now()) / 1000);
  $("send").disabled = !maySend() || count > CHARACTERS_MAX;
  $("send").textContent = left > 0 ? duration(left, true) : "Send";
}

function refreshLimit() {
  const left = Math.ceil((waitUntil - Date.now()) / 1000);
  const stale = !limit || limit.until <= Date.now();
  $("limit").hidden = stale && left <= 0;
  $("limit").toggleAttribute("data-low", left > 0 || (!stale && limit.left <= 2));
  if (left > 0) $("limit").textContent = `Next message in ${duration(left)}`;
  else if (!stale) $("limit").textContent = `${limit.left} of ${limit.of} messages left ${windowWords(limit.window)}`;
}

function tick() {
  if (waitUntil || limit || state.turns.at(-1)?.failure?.until) refresh();
  if (waitUntil && waitUntil <= Date.now()) {
    waitUntil = 0;
    say("You can send messages again");
    refresh();
  }
}

// --- the server's health ---

async function look() {
  clearTimeout(looking);
  const seen = document.hidden ? serverHealth : await health();
  if (seen !== serverHealth) {
    serverHealth = seen;
    const [word, sentence] = HEALTH_WORDS[seen] ?? [seen, ""];
    $("health").dataset.state = seen;
    $("health-word").textContent = word;
    $("notice").textContent = sentence;
    $("notice").hidden = !sentence;
    say(sentence || "Ready");
    refresh();
  }
  if (seen !== "healthy") looking = setTimeout(look, 1500);
}

// --- small things ---

function maySend() {
  return !running && waitUntil <= Date.now() && serverHealth !== "initializing";
}

function atEnd() {
  return innerHeight + scrollY >= document.documentElement.scrollHeight - 80;
}

function scrollDown(behavior = "instant") {
  scrollTo({ top: document.documentElement.scrollHeight, behavior });
}

function refreshDown() {
  $("down").hidden = atEnd();
}

function say(text) {
  $("spoken").textContent = text;
}

function characters(text) {
  return [...text.trim()].length;
}

function windowWords(seconds) {
  const names = { 1: "this second", 60: "this minute", 3600: "this hour", 86400: "today" };
  return names[seconds] ?? `in ${duration(seconds)}`;
}

function duration(seconds, short = false) {
  const [hours, minutes] = [Math.floor(seconds / 3600), Math.floor((seconds % 3600) / 60)];
  if (hours) return `${hours} h ${minutes} min`;
  if (minutes && seconds >= 120) return `${minutes} min`;
  return short ? `${seconds} s` : `${seconds} second${seconds === 1 ? "" : "s"}`;
}
