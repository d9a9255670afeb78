// ---- pages, keys and start

const PAGES = { samples: drawTable, episode: drawEpisode, compare: drawCompare, plots: drawPlots, run: drawRun };

function draw() {
  const names = Object.keys(PAGES).filter((name) => name !== "compare" || runs.length > 1 || pairs().length);
  document.getElementById("pages").replaceChildren(...names.map((name) =>
    el("button", { type: "button", "aria-pressed": String(state.page === name), onclick: () => turnTo(name) }, name)));
  document.body.classList.toggle("wide", state.page !== "episode");
  document.getElementById("tools").hidden = ["compare", "run"].includes(state.page);  // they show all, whatever is filtered
  PAGES[state.page]();
}

function turnTo(name) {
  state.page = name;
  state.pair = null;
  history.replaceState(null, "", `#${name}`);
  draw();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = {
    j: () => select(state.index + 1, true),
    k: () => select(state.index - 1, true),
    t: () => show(state.view === "tokens" ? "messages" : "tokens"),
    o: () => turnTo(state.page === "samples" ? "episode" : "samples"),
    "/": () => document.getElementById("search").focus(),
  }[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// #samples, #plots ... or #EPISODE; ?view=tokens opens its tokens, ?pair=QUESTION two attempts side by side.
drawFrame();
const wanted = new URLSearchParams(location.search);
if (wanted.get("view") === "tokens") state.view = "tokens";
const place = location.hash.slice(1);
const asked = page.episodes.findIndex((episode) => encodeURIComponent(anchor(episode)) === place);
if (wanted.get("pair")) {
  state.page = "compare";
  state.pair = wanted.get("pair");
} else if (asked >= 0) {
  state.page = "episode";
  state.index = asked;
} else if (PAGES[place]) {
  state.page = place;
}
visible = page.episodes;
refilter();
