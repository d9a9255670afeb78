// ---- the table

const COLUMNS = {
  run: (e) => letter(e), id: (e) => e.name, score: (e) => e.score, ended: (e) => e.stop, answer: (e) => e.extracted || e.answer,
  target: (e) => e.target, category: (e) => e.category, turns: (e) => e.turns, calls: (e) => e.calls, failed: (e) => e.callErrors, tokens: (e) => e.tokens,
  seconds: (e) => e.seconds, cost: (e) => e.cost,
};
const TEXTS = ["run", "id", "ended", "answer", "target", "category"];
const MOST_BARS = 8;

function drawTable() {
  const names = Object.keys(COLUMNS).filter((name) => name !== "run" || runs.length > 1)
    .filter((name) => name !== "category" || page.episodes.some((episode) => episode.category))
    .filter((name) => name !== "cost" || page.episodes.some((episode) => typeof episode.cost === "number"));
  const heads = names.map((name) => {
    const sorted = state.sort === name;
    const mark = sorted ? (state.down ? " \u25be" : " \u25b4") : "";
    const sort = () => {
      state.down = sorted ? !state.down : !TEXTS.includes(name);
      state.sort = name;
      refilter();
    };
    return el("th", { class: TEXTS.includes(name) ? "" : "num", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : "none" }, el("button", { type: "button", onclick: sort }, name + mark));
  });
  const body = visible.slice(0, state.shown).map((episode, index) =>
    el("tr", { onclick: () => { state.page = "episode"; select(index, true); } }, ...names.map((name) => cell(name, episode))));
  const more = visible.length > state.shown
    ? el("button", { type: "button", onclick: () => { state.shown += STEP; draw(); } }, `show more of ${visible.length}`) : null;
  const table = el("table", { class: "samples" }, el("thead", null, el("tr", null, ...heads)), el("tbody", null, ...body));
  document.getElementById("episode").replaceChildren(...(visible.length ? [table, more].filter(Boolean) : [nothing()]));
}

function cell(name, episode) {
  const value = COLUMNS[name](episode);
  if (name === "score") return el("td", { class: `${verdict(episode)} num` }, verdict(episode) === "error" ? "error" : number(value));
  if (name === "ended") return el("td", { class: episode.truncated ? "truncated" : "" }, value);
  if (name === "run") return el("td", null, badge(episode.run || 0));
  if (TEXTS.includes(name)) return el("td", { class: "words", title: value || "" }, value || "-");
  return el("td", { class: "num" }, number(value, name === "cost" ? 5 : 2));
}

// ---- two runs, or a pass and a fail of one question, side by side

function questions(run) {
  const found = new Map();
  for (const episode of page.episodes) {
    if ((episode.run || 0) !== run || episode.score === null) continue;
    if (!found.has(episode.id)) found.set(episode.id, []);
    found.get(episode.id).push(episode);
  }
  return found;
}

const mean = (episodes) => episodes.reduce((sum, episode) => sum + episode.score, 0) / episodes.length;

let paired = null; // the episodes of a page never change

function pairs() {
  paired = paired || findPairs();
  return paired;
}

function findPairs() {
  const first = questions(0);
  if (runs.length > 1) {
    const second = questions(1);
    return [...first].filter(([id]) => second.has(id))
      .map(([id, a]) => ({ id, a: mean(a), b: mean(second.get(id)), left: a, right: second.get(id) }));
  }
  return [...first].map(([id, all]) => ({ id, right: all.filter((e) => e.score >= 1), left: all.filter((e) => e.score < 1) }))
    .filter((pair) => pair.left.length && pair.right.length)
    .map((pair) => ({ ...pair, a: mean(pair.left), b: mean(pair.right) }));
}

function drawCompare() {
  const main = document.getElementById("episode");
  const all = pairs();
  const chosen = state.pair && all.find((pair) => pair.id === state.pair);
  if (chosen) return drawPair(chosen, main);
  const two = runs.length > 1;
  const kinds = two
    ? { all: () => true, "B better": (pair) => pair.b > pair.a, "A better": (pair) => pair.b < pair.a, "the same": (pair) => pair.b === pair.a }
    : { all: () => true };
  const keep = kinds[state.outcome] || kinds.all;
  const buttons = two ? Object.keys(kinds).map((name) =>
    el("button", { type: "button", "aria-pressed": String(keep === kinds[name]), onclick: () => { state.outcome = name; draw(); } }, `${name} ${all.filter(kinds[name]).length}`)) : [];
  const order = all.filter(keep).sort((x, y) => Math.abs(y.b - y.a) - Math.abs(x.b - x.a) || x.id.localeCompare(y.id, undefined, { numeric: true }));
  const rows = order.slice(0, state.shown).map(pairRow);
  const heads = ["question", "target", two ? "A" : "wrong", two ? "B" : "right", two ? "answer of A" : "a wrong answer", two ? "answer of B" : "a right answer"]
    .map((name, i) => el("th", { class: i === 2 || i === 3 ? "num" : "" }, name));
  const table = el("table", { class: "samples" }, el("thead", null, el("tr", null, ...heads)), el("tbody", null, ...rows));
  const rest = order.length > state.shown
    ? el("button", { type: "button", onclick: () => { state.shown += STEP; draw(); } }, `show more of ${order.length}`) : "";
  main.replaceChildren(el("p", null, outcome(all)), el("div", { class: "group" }, ...buttons), all.length ? table : el("p", { class: "empty" }, "No question is scored in both runs."), rest);
}

function pairRow(pair) {
  const said = (side) => side[0].extracted || side[0].answer || "-";
  const words = (text) => el("td", { class: "words", title: text }, text);
  const better = (mine, other) => `num ${mine > other ? "right" : mine < other ? "wrong" : ""}`;
  return el("tr", { onclick: () => { state.pair = pair.id; draw(); } },
    words(pair.id), words(pair.left[0].target || "-"),
    el("td", { class: better(pair.a, pair.b) }, number(pair.a)), el("td", { class: better(pair.b, pair.a) }, number(pair.b)),
    words(said(pair.left)), words(said(pair.right)));
}

// What the whole runs come to; the page itself may hold a part of them.
function outcome(all) {
  if (runs.length < 2) return `${all.length} questions have a right and a wrong attempt.`;
  const found = page.comparison || {};
  if (found.why) return found.why;
  const points = (share) => `${share < 0 ? "\u2212" : "+"}${Math.abs(100 * share).toFixed(1)} points`;
  const error = found.stderr === null ? "" : ` (standard error ${(100 * found.stderr).toFixed(1)})`;
  const p = found.p_value === null ? "" : `, McNemar exact p = ${found.p_value < 0.0001 ? "< 0.0001" : number(found.p_value, 4)}`.replace("= <", "<");
  return `B \u2212 A = ${points(found.difference)}${error}${p}, on ${found.n} questions scored in both.`;
}

async function drawPair(pair, main) {
  const back = el("button", { type: "button", onclick: () => { state.pair = null; draw(); } }, "all questions");
  const ticket = (state.ticket += 1);
  const differ = (a) => pair.right.find((b) => b.repeat === a.repeat) || pair.right[0];
  const left = pair.left[0];
  const sides = await Promise.all([left, runs.length > 1 ? differ(left) : pair.right[0]].map(card));
  if (ticket !== state.ticket) return;
  main.replaceChildren(back, el("div", { class: "sides" }, ...sides.map((side) => el("div", null, ...side))));
}

// ---- plots

const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Wilson's interval of a share; for scores between 0 and 1 it is a little wide.
function wilson(share, n) {
  const z = 1.959964;
  const centre = (share + (z * z) / (2 * n)) / (1 + (z * z) / n);
  const half = (z / (1 + (z * z) / n)) * Math.sqrt((share * (1 - share)) / n + (z * z) / (4 * n * n));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

// Where to cut the values of `episodes`, so that both runs stand over the same bins.
function edgesOf(episodes, value) {
  const sorted = episodes.map(value).sort((a, b) => a - b);
  const distinct = [...new Set(sorted)];
  if (distinct.length <= MOST_BARS) return distinct.map((v) => [v, v]);
  const cuts = [...new Set([0, 1, 2, 3, 4, 5].map((i) => sorted[Math.floor((i * sorted.length) / 6)]))];
  return cuts.map((low, i) => [low, i + 1 < cuts.length ? cuts[i + 1] - 1 : sorted[sorted.length - 1]]);
}

function chart(title, sides, value) {
  const edges = edgesOf(sides.flat(), value);
  const wide = sides.length > 1;
  const [bar, step] = wide ? [26, 74] : [34, 58];
  const [width, left, base, top] = [60 + edges.length * step, 42, 170, 12];
  const height = base + 22 + sides.length * 15;
  const y = (share) => base - (base - top) * Math.min(1, Math.max(0, share));
  const picture = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(svg("line", { x1: left, x2: width - 4, y1: y(share), y2: y(share), class: "grid" }));
    picture.append(svg("text", { x: left - 6, y: y(share) + 4, "text-anchor": "end", class: "faint" }, `${share * 100}%`));
  }
  edges.forEach(([low, high], i) => {
    const middle = left + (i + 0.5) * step;
    picture.append(svg("text", { x: middle, y: base + 17, "text-anchor": "middle" }, low === high ? String(low) : `${low}\u2013${high}`));
    sides.forEach((episodes, at) => {
      const inside = episodes.filter((episode) => value(episode) >= low && value(episode) <= high);
      const x = middle + (wide ? (at ? 1 : -1 - bar) : -bar / 2);
      const count = wide ? `${"AB"[at]} n=${inside.length}` : `n=${inside.length}`;
      picture.append(svg("text", { x: middle, y: base + 32 + at * 14, "text-anchor": "middle", class: "faint" }, count));
      if (inside.length) picture.append(...column(x, bar, y, mean(inside), inside.length, "ab"[at]));
    });
  });
  return el("figure", null, el("figcaption", null, title), picture);
}

function column(x, width, y, share, n, run) {
  const [low, high] = wilson(Math.min(1, Math.max(0, share)), n);
  const [middle, cap] = [x + width / 2, 4];
  const line = (x1, x2, y1, y2) => svg("line", { x1, x2, y1, y2, class: "whisker" });
  const bar = svg("rect", { x, y: y(share), width, height: y(0) - y(share), class: `column ${run}` });
  bar.append(svg("title", {}, `${(100 * share).toFixed(1)}% of ${n} (95% ${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)})`));
  return [bar, line(middle, middle, y(low), y(high)), line(middle - cap, middle + cap, y(low), y(low)), line(middle - cap, middle + cap, y(high), y(high))];
}

function drawPlots() {
  const main = document.getElementById("episode");
  const sides = runs.map((_, at) => visible.filter((episode) => (episode.run || 0) === at && episode.score !== null));
  if (!sides.some((side) => side.length)) return main.replaceChildren(el("p", { class: "empty" }, "No scored episode fits the filter."));
  const about = `Mean ${page.metric} of the episodes that fit the filter, errors left out; whiskers are 95% Wilson intervals over episodes.`;
  main.replaceChildren(el("p", { class: "note" }, about), el("div", { class: "charts" },
    chart("by turns", sides, (episode) => episode.turns),
    chart("by tool calls", sides, (episode) => episode.calls),
    chart("by failed calls", sides, (episode) => episode.callErrors),
    chart("by sampled tokens", sides, (episode) => episode.tokens)));
}
