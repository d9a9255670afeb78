// ---- one episode

async function drawEpisode() {
  const main = document.getElementById("episode");
  const episode = visible[state.index];
  if (!episode) {
    main.replaceChildren(nothing());
    return;
  }
  if (episode.messages === undefined) main.replaceChildren(el("p", { class: "note" }, "Reading the episode ..."));
  const shown = await card(episode);
  if (visible[state.index] === episode && state.page === "episode") main.replaceChildren(...shown);
  main.parentElement.scrollTop = 0;
}

function nothing() {
  return el("p", { class: "empty" }, page.episodes.length ? "No episode fits the filter." : "No episode has finished yet.");
}

// Title, facts and body of an episode, or why there are none.
async function card(episode) {
  const ticket = state.view;
  try {
    await whole(episode);
  } catch (error) {
    return [el("p", { class: "wrong" }, `This episode could not be read: ${error.message}`)];
  }
  const body = ticket === "tokens" ? tokenView(episode) : messageView(episode);
  const title = el("div", { class: "title" }, el("div", { class: "group" }, badge(episode.run || 0), el("h2", null, episode.name)), tabs());
  return [title, factBar(episode), body];
}

function factBar(episode) {
  const facts = [
    ["ended", episode.stop],
    ["target", episode.target],
    ["read as", episode.extracted],
    ...Object.entries(episode.scores).map(([name, value]) => [name, number(value)]),
    ["reward", number(episode.reward)],
    ["advantage", episode.advantage],
    ["turns", episode.turns],
    ["calls", episode.callErrors ? `${episode.calls} (${episode.callErrors} failed)` : episode.calls],
    ["sampled tokens", episode.tokens],
    ["prompt tokens", episode.promptTokens],
    ["seconds", number(episode.seconds, 2)],
    ["of the model", episode.modelSeconds >= 0.005 ? number(episode.modelSeconds, 2) : null],
    ["of tools", episode.toolSeconds >= 0.005 ? number(episode.toolSeconds, 2) : null],
    ["cost", episode.cost === null || episode.cost === undefined ? null : `$${number(episode.cost, 5)}`],
    ["seed", episode.seed],
  ];
  const bar = el("div", { class: "bar" });
  for (const [label, value] of facts) {
    if (value === null || value === undefined) continue;
    const kind = label === page.metric || (label === "ended" && verdict(episode) === "error") ? verdict(episode) : "";
    bar.append(el("span", null, label, el("b", { class: kind }, label === "advantage" ? number(value) : String(value))));
  }
  return bar;
}

function tabs() {
  const tab = (view) =>
    el("button", { type: "button", "aria-pressed": String(state.view === view), onclick: () => show(view) }, view);
  return el("div", { class: "group" }, tab("messages"), tab("tokens"));
}

function show(view) {
  state.view = view;
  if (state.page !== "compare") state.page = "episode";
  draw();
}

function messageView(episode) {
  const view = el("div");
  let at = 0;
  for (const message of episode.messages) {
    const seconds = message.role === "assistant" ? (episode.turnSeconds || [])[at++] : null;
    const took = seconds && seconds.model >= 0.005 ? ` · ${number(seconds.model, 2)} s` : "";
    const turn = el("section", { class: `turn ${message.role}` }, el("div", { class: "role" }, message.role + took));
    if (message.reasoning) turn.append(el("div", { class: "text reasoning" }, message.reasoning));
    turn.append(...contents(message.parts, "text"));
    turn.append(...message.calls.map(callView));
    view.append(turn);
  }
  if (episode.judge) view.append(el("section", { class: "turn" }, el("div", { class: "role" }, "judge"), el("div", { class: "text" }, episode.judge)));
  if (episode.error) view.append(el("pre", { class: "traceback" }, episode.error));
  return view;
}

function callView(call) {
  const head = el("div", { class: "head" }, el("b", null, call.name || "unreadable call"));
  head.append(el("span", { class: call.outcome === "ok" ? "right" : "wrong" }, call.outcome || "did not run"));
  if (call.seconds !== null) head.append(el("span", { class: "note" }, `${number(call.seconds, 2)} s`));
  const result = call.result ? [el("div", { class: "role" }, "result"), ...contents(call.result, "pre")] : [];
  return el("div", { class: "call" }, head, el("pre", null, call.shown), ...result);
}

function contents(parts, kind) {
  return parts.map((part) => {
    if (part.text !== undefined) return kind === "pre" ? el("pre", null, part.text) : el("div", { class: "text" }, part.text);
    const source = page.images[part.image];
    if (!source) return el("p", { class: "note" }, `[image ${part.width} x ${part.height}: not on this page]`);
    return el("img", { src: source, alt: `image, ${part.width} by ${part.height} pixels`, loading: "lazy" });
  });
}

// ---- tokens

function tokenView(episode) {
  const view = el("div", { class: state.onlyLoss ? "only-loss" : "" });
  if (!episode.sequences) {
    view.append(el("p", { class: "note" }, episode.noTokens));
    return view;
  }
  view.append(legend(episode, view));
  episode.sequences.forEach((sequence, index) => {
    const trained = sequence.runs.reduce((sum, [count, , mask]) => sum + (mask ? count : 0), 0);
    const which = index === 0 ? "Sequence 1" : `Sequence ${index + 1}: a fork, its prompt was rendered anew`;
    view.append(el("div", { class: "role" }, `${which} · ${sequence.ids.length} tokens, ${trained} in the loss`));
    view.append(tokens(sequence));
  });
  return view;
}

function legend(episode, view) {
  const counts = {};
  for (const sequence of episode.sequences) {
    for (const [count, code] of sequence.runs) counts[code] = (counts[code] || 0) + count;
  }
  const bar = el("div", { class: "legend" }, "Written by");
  for (const [code, name] of Object.entries(SOURCES)) {
    if (counts[code]) bar.append(el("span", { class: `swatch ${sourceClass(code)}` }, `${name} ${counts[code]}`));
  }
  bar.append(el("span", { class: "swatch loss" }, "underlined: in the loss"));
  const toggle = el("button", { type: "button", "aria-pressed": String(state.onlyLoss) }, "only what the loss sees");
  toggle.addEventListener("click", () => {
    state.onlyLoss = !state.onlyLoss;
    toggle.setAttribute("aria-pressed", String(state.onlyLoss));
    view.classList.toggle("only-loss", state.onlyLoss);
  });
  bar.append(toggle);
  return bar;
}

function sourceClass(code) {
  return code === "t" ? "src-tool" : SOURCES[code];
}

function tokens(sequence) {
  const block = el("div", { class: "tokens" });
  let position = 0;
  let sampled = 0;
  for (const [count, code, mask] of sequence.runs) {
    for (let i = 0; i < count; i += 1, position += 1) {
      const logprob = mask ? sequence.logprobs[sampled++] : null;
      block.append(token(sequence, position, code, mask, logprob));
    }
  }
  return block;
}

function token(sequence, position, code, mask, logprob) {
  const id = sequence.ids[position];
  const hover = [`token ${position}, id ${id}`, SOURCES[code], mask ? "in the loss" : "not in the loss"];
  if (typeof logprob === "number") hover.push(`log-prob ${logprob} (p ${number(Math.exp(logprob), 4)})`);
  else if (mask) hover.push(`log-prob ${logprob}`);
  const classes = `${sourceClass(code)}${mask ? " loss" : ""}${sequence.texts ? "" : " id"}`;
  const text = sequence.texts ? visibleText(sequence.texts[position]) : `${id} `;
  return el("span", { class: classes, title: hover.join(" · ") }, text);
}

function visibleText(text) {
  return text === "" ? "\u00b7" : text.replace(/\n/g, "\u21b5\n").replace(/\t/g, "\u21e5");
}

