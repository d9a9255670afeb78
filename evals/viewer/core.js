"use strict";
// Everything from the episodes reaches the page through textContent: an episode may hold hostile markup.

const page = JSON.parse(document.getElementById("data").textContent);
if (!Array.isArray(page.episodes)) { // a live page names the columns once
  const { keys, rows } = page.episodes;
  page.episodes = rows.map((row) => Object.fromEntries(keys.map((key, at) => [key, row[at]])));
}
const runs = page.runs || [{ title: page.title, headline: page.headline, metric: page.metric, facts: page.facts }];
const SOURCES = { p: "prompt", m: "model", t: "tool", e: "env", f: "forced" };
const KINDS = ["all", "right", "wrong", "error", "truncated"];
const STEP = 300;
const state = {
  kind: "all", query: "", stop: "", tool: "", category: "", run: "", index: 0, view: "messages", onlyLoss: false,
  page: "samples", shown: STEP, sort: null, down: false, pair: null, ticket: 0,
};
let visible = [];

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  for (const child of children) if (child !== null && child !== undefined) node.append(child);
  return node;
}

function number(value, digits = 3) {
  if (value === null || value === undefined) return "-";
  return Number.isInteger(value) ? String(value) : String(Number(value.toFixed(digits)));
}

function letter(episode) {
  return runs.length > 1 ? "AB"[episode.run || 0] : "";
}

function verdict(episode) {
  if (episode.score === null) return "error";
  return episode.score >= 1 ? "right" : "wrong";
}

function matches(episode, kind) {
  if (kind === "all") return true;
  return kind === "truncated" ? episode.truncated : verdict(episode) === kind;
}

function textOf(episode) {
  const whole = episode.messages !== undefined;
  if (episode.haystack === undefined || episode.haystackWhole !== whole) {
    const parts = [episode.name, episode.target, episode.answer, episode.extracted, episode.failure, episode.error];
    for (const message of episode.messages || []) {
      parts.push(message.reasoning);
      for (const part of message.parts) parts.push(part.text);
      for (const call of message.calls) {
        parts.push(call.name, call.shown);
        for (const part of call.result || []) parts.push(part.text);
      }
    }
    episode.haystack = parts.map((part) => part || "").join("\n").toLowerCase();
    episode.haystackWhole = whole;
  }
  return episode.haystack;
}

// The episode with all it holds; a live page asks its server for what it does not have yet.
async function whole(episode) {
  if (episode.messages !== undefined || !page.live) return episode;
  const reply = await fetch(`episode?run=${episode.run || 0}&n=${episode.number}`);
  if (!reply.ok) throw new Error(`the server said ${reply.status}`);
  const found = await reply.json();
  Object.assign(page.images, found.images);
  return Object.assign(episode, found.episode);
}

// ---- the list

function drawFrame() {
  document.getElementById("cards").replaceChildren(...runs.map((run, at) =>
    el("div", { class: "card" }, badge(at), el("div", null, el("h1", null, run.title), el("div", { class: "score" }, run.headline)))));
  document.getElementById("note").textContent = page.note;
  const filters = document.getElementById("filters");
  for (const kind of KINDS) {
    const count = page.episodes.filter((episode) => matches(episode, kind)).length;
    filters.append(
      el("button", { type: "button", "data-kind": kind, onclick: () => { state.kind = kind; refilter(); } }, `${kind} ${count}`),
    );
  }
  const search = document.getElementById("search");
  if (page.live) search.placeholder = "Search ids, answers, targets, errors";
  search.addEventListener("input", (event) => {
    state.query = event.target.value.toLowerCase();
    refilter();
  });
  const choices = document.getElementById("choices");
  const endings = new Set(page.episodes.map((episode) => episode.stop));
  if (endings.size > 1) choices.append(choice("stop", "any ending", endings));
  const tools = new Set(page.episodes.flatMap((episode) => Object.keys(episode.tools || {})));
  if (tools.size) choices.append(choice("tool", "any tool", [...tools, "(none)"]));
  const categories = new Set(page.episodes.map((episode) => episode.category).filter(Boolean));
  if (categories.size > 1) choices.append(choice("category", "any category", categories));
  if (runs.length > 1) choices.append(choice("run", "both runs", ["A", "B"]));
}

// Which of two runs; nothing where there is one.
function badge(run) {
  return runs.length > 1 ? el("span", { class: `badge ${"ab"[run]}` }, "AB"[run]) : null;
}

// What was asked and what came of it; of two runs side by side, with what differs in bold.
function drawRun() {
  const facts = runs.map((run) => new Map(run.facts || []));
  const labels = [...new Set(facts.flatMap((found) => [...found.keys()]))];
  const names = el("tr", null, el("td", null, ""), ...runs.map((run, at) => el("td", null, el("div", { class: "group" }, badge(at), run.name || ""))));
  const rows = labels.map((label) => {
    const values = facts.map((found) => found.get(label) || "-");
    const kind = new Set(values).size > 1 ? "differs" : "";
    return el("tr", { class: kind }, el("td", null, label), ...values.map((value) => el("td", null, value)));
  });
  const parts = runs.map(categoryTable).filter(Boolean);
  document.getElementById("episode").replaceChildren(...parts, el("table", { id: "facts" }, names, ...rows));
}

// The score of each category of the tasks; nothing where a run has none to tell apart.
function categoryTable(run, at) {
  const [heads, ...rows] = run.categories || [];
  if (!heads) return null;
  const line = (tag, cells) => el("tr", null, ...cells.map((cell, i) => el(tag, { class: i ? "num" : "" }, cell)));
  return el("section", { class: "categories" }, badge(at),
    el("table", { class: "samples" }, el("thead", null, line("th", heads)), el("tbody", null, ...rows.map((row) => line("td", row)))));
}

function choice(field, all, values) {
  const select = el("select", { "aria-label": all }, el("option", { value: "" }, all));
  for (const value of [...values].sort()) select.append(el("option", { value }, value));
  select.addEventListener("change", () => {
    state[field] = select.value;
    refilter();
  });
  return select;
}

function fits(episode) {
  if (!matches(episode, state.kind)) return false;
  if (state.stop && episode.stop !== state.stop) return false;
  if (state.category && episode.category !== state.category) return false;
  if (state.run && letter(episode) !== state.run) return false;
  if (state.tool && (state.tool === "(none)" ? episode.calls > 0 : !(episode.tools || {})[state.tool])) return false;
  return !state.query || textOf(episode).includes(state.query);
}

function refilter() {
  const kept = visible[state.index];
  visible = page.episodes.filter(fits);
  if (state.sort) {
    const key = state.sort;
    const value = (episode) => { const found = COLUMNS[key](episode); return found === null || found === undefined ? -Infinity : found; };
    const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
    visible.sort((a, b) => (state.down ? -1 : 1) * order(value(a), value(b)));
  }
  for (const button of document.querySelectorAll("#filters button")) {
    button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
  }
  state.shown = STEP;
  state.index = Math.max(0, visible.indexOf(kept));
  drawList();
  select(state.index, false);
}

function drawList() {
  const last = Math.max(state.shown, state.index + 1);
  const list = document.getElementById("list");
  list.replaceChildren(...visible.slice(0, last).map(row));
  if (visible.length > last) list.append(el("li", { class: "note", onclick: () => { state.shown = last + STEP; drawList(); } }, `${visible.length - last} more`));
}

function row(episode, index) {
  const kind = verdict(episode);
  const score = kind === "error" ? "error" : number(episode.score);
  const cut = episode.truncated ? el("span", { class: "truncated", title: episode.stop }, "cut") : null;
  return el(
    "li",
    { onclick: () => { state.page = "episode"; select(index, true); } },
    el("div", { class: "name" }, badge(episode.run || 0), el("span", { class: "id-of" }, episode.name), cut, el("span", { class: kind }, score)),
    el("div", { class: "said" }, `${episode.extracted || episode.answer || episode.failure || episode.stop}`),
  );
}

function select(index, remember) {
  state.index = Math.min(Math.max(0, index), Math.max(0, visible.length - 1));
  let rows = document.querySelectorAll("#list li");
  if (state.index >= state.shown && visible.length > rows.length) {
    drawList();
    rows = document.querySelectorAll("#list li");
  }
  rows.forEach((node, i) => node.setAttribute("aria-current", String(i === state.index)));
  if (rows[state.index]) rows[state.index].scrollIntoView({ block: "nearest" });
  draw();
  if (remember && visible[state.index]) history.replaceState(null, "", `#${encodeURIComponent(anchor(visible[state.index]))}`);
}

function anchor(episode) {
  return letter(episode) ? `${letter(episode)} ${episode.name}` : episode.name;
}

