// The page: a library of assets, one player, menus, numbers. State lives in the URL: #asset=…&player=…
import { createPlayer, ENGINES, explain } from "./players.js";
import { Gate } from "./gate.js";
import { Meter } from "./meter.js";
import { clock, drawEngines, drawFindings, drawLinks, element, fill } from "./panels.js";
import { describeFailure } from "./words.js";

const POLL_MS = 2000;
const SPEEDS = [0.5, 1, 1.25, 1.5, 2];
const $ = (id) => document.getElementById(id);
const video = $("video");
// The build copies these beside this file and puts their hashed names here.
const libraries = {
  hls: new URL("./hls.min.js", import.meta.url).href,
  dash: new URL("./dash.all.min.js", import.meta.url).href,
  shaka: new URL("./shaka-player.compiled.js", import.meta.url).href,
};

// A page of one asset: whoever lets another site frame this one has not let it frame the others.
const only = new URLSearchParams(location.search).get("asset");

let assets = [];
let shown = { asset: null, engine: null }; // what the stage holds
let player = null;
let rungChosen = null; // id of a rung; null: automatic
let generation = 0; // rises with every load, so that answers which come late are dropped
let failing = 0; // the generation whose failure is being looked into: one refusal makes many errors
let pollTimer = 0;
const gate = new Gate($("door"));

// ---- state in the URL ----

const readHash = () => new URLSearchParams(location.hash.slice(1));

function hashFor(asset, engine) {
  const state = new URLSearchParams();
  const carriage = readHash().get("carriage");
  if (asset) state.set("asset", asset);
  if (engine) state.set("player", engine);
  if (carriage) state.set("carriage", carriage); // of a gated video's token: path, header or cookie
  return `#${state}`;
}

/** What a link names that is not in the list: gated videos need not be. */
const unlisted = (id) => ({
  id, title: id, state: "ready", gated: !id.endsWith("~preview"), urls: { hls: `v/${id}/main.m3u8`, dash: `v/${id}/main.mpd` },
});

function follow() {
  const state = readHash();
  if (location.hash && !state.has("asset") && !state.has("player")) return; // an ordinary anchor
  const named = only ?? state.get("asset");
  const asset = assets.find((item) => item.id === named) ?? (named ? unlisted(named) : assets.find((item) => item.state === "ready") ?? assets[0]);
  const engine = ENGINES.find((item) => item.id === state.get("player") && item.usable()) ?? ENGINES.find((item) => item.usable());
  show(asset ?? null, engine ?? null);
}

// ---- the library ----

const STATES = { ready: "", preparing: "Being prepared", failed: "Cannot be played" };

function drawLibrary() {
  const chosen = shown.asset?.id;
  $("assets").replaceChildren(...assets.map((asset) => {
    const meta = asset.state === "ready" ? clock(asset.duration) : STATES[asset.state] ?? asset.state;
    const link = element("a", { href: hashFor(asset.id, shown.engine?.id), className: `asset ${asset.state}` },
      element("span", { className: "name", textContent: asset.title || asset.id }),
      element("span", { className: "meta", textContent: meta }));
    if (asset.id === chosen) link.setAttribute("aria-current", "true");
    return element("li", {}, link);
  }));
  const ready = assets.filter((asset) => asset.state === "ready").length;
  $("summary").textContent = assets.length ? `${ready} of ${assets.length} ready` : "";
}

async function refresh() {
  clearTimeout(pollTimer);
  try {
    const response = await fetch("assets.json", { cache: "no-cache" });
    if (!response.ok) throw new Error(`assets.json: ${response.status}`);
    assets = (await response.json()).assets.filter((asset) => only === null || asset.id === only);
  } catch (error) {
    if (!assets.length) veil("The list of videos cannot be loaded. Trying again…");
    console.info(error);
    pollTimer = setTimeout(refresh, POLL_MS);
    return;
  }
  const now = assets.find((asset) => asset.id === shown.asset?.id);
  if (!now || now.state !== shown.asset.state) follow();
  drawLibrary();
  if (assets.some((asset) => asset.state === "preparing")) pollTimer = setTimeout(refresh, POLL_MS);
}

// ---- the stage ----

function veil(text) {
  $("veil-text").textContent = text ?? "";
  $("veil").hidden = !text;
}

function problem(title, detail) {
  $("problem").hidden = !title;
  $("problem-title").textContent = title ?? "";
  $("problem-detail").textContent = detail ?? "";
}

async function show(asset, engine, again = false, held = null) {
  if (!again && asset?.id === shown.asset?.id && asset?.state === shown.asset?.state && engine === shown.engine) return;
  const resumeAt = asset?.id === shown.asset?.id && Number.isFinite(video.currentTime) ? held?.position ?? video.currentTime : 0;
  const playing = held?.playing ?? (!video.paused && !video.ended);
  shown = { asset, engine };
  const mine = ++generation;
  const old = player;
  player = null;
  rungChosen = null;
  await old?.destroy();
  if (mine !== generation) return;
  problem();
  drawStage();
  drawMenus();
  drawLibrary();
  gate.close();
  if (!asset) return veil("No videos yet. Put a file into the folder that is served.");
  if (asset.state === "preparing") return veil("This video is being prepared. It starts by itself.");
  if (asset.state !== "ready") {
    veil("This video cannot be played.");
    return problem("This video cannot be played.", asset.findings?.map((finding) => finding.detail).join(" "));
  }
  if (!engine) return veil("This browser can play neither HLS nor DASH.");
  veil("Loading…");
  const report = (kind, detail) => {
    if (mine !== generation) return;
    if (kind === "error") failed(mine, detail);
    else if (kind === "warning") meter.warned(detail);
    else drawMenus();
  };
  try {
    const playback = await gate.enter(asset, engine, readHash().get("carriage"));
    if (mine !== generation) return;
    const made = await createPlayer(engine, video, report, libraries, playback);
    if (mine !== generation) return made.destroy();
    player = made;
    meter.start(player);
    await player.load(new URL((playback ?? asset).urls[engine.manifest], document.baseURI).href);
  } catch (error) {
    if (mine === generation && !error.reported) failed(mine, { code: error.code ?? "player", detail: error.message, answer: error.answer });
    return;
  }
  if (mine !== generation) return;
  veil();
  drawMenus();
  video.playbackRate = Number($("speed").value) || 1;
  if (resumeAt > 0) video.currentTime = resumeAt;
  if (playing) video.play().catch(() => {}); // the browser may refuse until the viewer clicks
}

async function failed(mine, failure) {
  if (failing === mine) return;
  failing = mine;
  meter.warned(failure);
  const held = { position: video.currentTime, playing: !video.paused && !video.ended };
  const { playback } = gate;
  const { asset, engine } = shown;
  let answer = failure.answer ?? null;
  answer ??= await explain(failure.url, playback?.headers());
  answer ??= await explain(new URL((playback ?? asset).urls[engine.manifest], document.baseURI), playback?.headers());
  if (mine !== generation) return;
  try {
    if (!failure.answer && await gate.recover(answer, held.position)) return mine === generation && show(asset, engine, true, held);
  } catch (error) {
    answer = error.answer ?? answer;
  }
  if (mine !== generation) return;
  const words = describeFailure(failure, answer);
  veil();
  problem(words.title, words.detail);
}

function drawStage() {
  const { asset, engine } = shown;
  const name = asset ? asset.title || asset.id : "Nothing to play";
  $("title").textContent = name;
  document.title = asset ? `${name} · StreamGate` : "StreamGate";
  drawEngines($("engines"), engine);
  const urls = asset?.urls ?? {};
  const links = [["HLS", urls.hls], ["HLS, TS segments", urls.hls_ts], ["DASH", urls.dash]].filter(([, path]) => path);
  $("links-panel").hidden = !links.length;
  drawLinks($("links"), links);
  const findings = asset?.findings ?? [];
  $("findings-panel").hidden = !findings.length;
  drawFindings($("findings"), findings);
}

function drawMenus() {
  const rungs = player?.rungs() ?? [];
  const audios = player?.audios() ?? [];
  const texts = player?.texts() ?? [];
  if (!rungs.some((rung) => rung.id === rungChosen)) rungChosen = null;
  const active = rungs.find((rung) => rung.active);
  const tallest = Math.max(0, ...rungs.map((rung) => rung.height || 0));
  const facts = [shown.asset?.duration ? clock(shown.asset.duration) : "", tallest ? `up to ${tallest}p` : "", rungs.length > 1 ? `${rungs.length} rungs` : ""];
  $("subtitle").textContent = facts.filter(Boolean).join(" · ") || "\u00a0";
  const automatic = rungChosen === null && active?.height ? `Automatic (${active.height}p)` : "Automatic";
  fill($("quality"), rungs.length > 1 ? [["", automatic], ...rungs.toReversed().map((rung) => [String(rung.id), rung.label])] : [["", rungs[0]?.label ?? "Automatic"]], rungChosen === null ? "" : String(rungChosen));
  fill($("audio"), audios.length ? audios.map((track) => [String(track.id), track.label]) : [["", "Default"]], String(audios.find((track) => track.active)?.id ?? ""));
  fill($("text"), [["", "Off"], ...texts.map((track) => [String(track.id), track.label])], String(texts.find((track) => track.active)?.id ?? ""));
}

// ---- what the viewer does ----

const chosen = (list, value) => (value === "" ? null : list.find((item) => String(item.id) === value)?.id ?? null);

$("quality").addEventListener("change", ({ target }) => {
  rungChosen = chosen(player?.rungs() ?? [], target.value);
  player?.setRung(rungChosen);
  drawMenus();
});
$("audio").addEventListener("change", ({ target }) => {
  const id = chosen(player?.audios() ?? [], target.value);
  if (id !== null) player.setAudio(id);
});
$("text").addEventListener("change", ({ target }) => player?.setText(chosen(player.texts(), target.value)));
$("speed").addEventListener("change", ({ target }) => { video.playbackRate = Number(target.value); });
$("engines").addEventListener("change", ({ target }) => { location.hash = hashFor(shown.asset?.id, target.value); });
$("retry").addEventListener("click", () => show(shown.asset, shown.engine, true));
addEventListener("hashchange", follow);

const keys = {
  " ": () => (video.paused ? video.play().catch(() => {}) : video.pause()),
  k: () => keys[" "](),
  ArrowLeft: () => { video.currentTime -= 5; },
  ArrowRight: () => { video.currentTime += 5; },
  m: () => { video.muted = !video.muted; },
  f: () => (document.fullscreenElement ? document.exitFullscreen() : video.requestFullscreen().catch(() => {})),
  c: () => {
    const texts = player?.texts() ?? [];
    if (texts.length) player.setText(texts.some((track) => track.active) ? null : texts[0].id);
    drawMenus();
  },
};
addEventListener("keydown", (event) => {
  // Controls keep their own keys; so does the video, whose controls the browser draws.
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("a, button, input, select, video, [contenteditable]")) return;
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

const meter = new Meter(video, $("stats"), $("graph"), () => shown.engine?.label ?? "–");
fill($("speed"), SPEEDS.map((speed) => [String(speed), speed === 1 ? "Normal" : `${speed}×`]), "1");
drawMenus();
refresh();
