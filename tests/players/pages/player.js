// One player of the demo page's adapters behind `window.player`, for tests: ?engine=ID&url=MANIFEST
import { createPlayer, ENGINES, loadScript } from "/web/players.js";

const MODULES = "/web/node_modules";
const LIBRARIES = {
  hls: `${MODULES}/hls.js/dist/hls.min.js`,
  dash: `${MODULES}/dashjs/dist/modern/umd/dash.all.min.js`,
  shaka: `${MODULES}/shaka-player/dist/shaka-player.compiled.js`,
};
const BITS = 16; // tests.media_factory draws the number of a frame as a row of light and dark blocks

const query = new URLSearchParams(location.search);
const engine = ENGINES.find((item) => item.id === query.get("engine"));
const video = document.getElementById("video");
const events = [];
const errors = [];
const warnings = [];

for (const name of ["playing", "pause", "seeked", "ended", "waiting", "stalled"]) video.addEventListener(name, () => events.push(name));
addEventListener("error", (event) => errors.push(`page: ${event.message}`));
addEventListener("unhandledrejection", (event) => errors.push(`page: ${event.reason}`));

// What players report of themselves (CTA-5004): hls.js in the query, dash.js in headers.
if (query.has("cmcd") && engine.script === "hls") {
  await loadScript(LIBRARIES.hls);
  Hls.DefaultConfig.cmcd = {};
}

const adapter = await createPlayer(engine, video, (kind, detail) => {
  if (kind === "error") errors.push(`${detail.code}: ${detail.detail}`);
  else if (kind === "warning") warnings.push(`${detail.code}: ${detail.detail}`);
  else events.push(kind);
}, LIBRARIES);

// Where hls.js stands when it has loaded enough to play, and where what it has loaded begins.
let start = null;
adapter.hls?.on("hlsFragBuffered", () => {
  if (!start && video.buffered.length) start = { time: video.currentTime, buffered: video.buffered.start(0) };
});

function decoded() {
  const quality = video.getVideoPlaybackQuality();
  return { total: quality.totalVideoFrames, dropped: quality.droppedVideoFrames, corrupted: quality.corruptedVideoFrames };
}

// What had been decoded when all was played. Where the element is late to tell that it ended, dash.js goes to the end by a seek,
// and some pictures are decoded again.
let whole = null;
video.addEventListener("seeking", () => {
  const played = video.played.length ? video.played.end(video.played.length - 1) : 0;
  if (!whole && played >= video.duration - 0.05 && video.currentTime >= video.duration - 1) whole = decoded();
});

// Stalls that hls.js has reported and not yet seen the end of.
let stalls = 0;
adapter.hls?.on("hlsError", (_, data) => { if (data.details === "bufferStalledError") stalls += 1; });
adapter.hls?.on("hlsStallResolved", () => { stalls -= 1; });

/** The number written into the picture that `element` shows. */
function frameNumber(element = video) {
  const canvas = new OffscreenCanvas(element.videoWidth, element.videoHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(element, 0, 0);
  const step = Math.floor(canvas.width / BITS);
  const row = Math.floor(canvas.height / 12);
  let number = 0;
  for (let bit = 0; bit < BITS; bit += 1) {
    const [red, green, blue] = context.getImageData(bit * step + (step >> 1), row, 1, 1).data;
    if (red + green + blue > 384) number += 2 ** bit;
  }
  return number;
}

let analyser = null;

/** How loud (dB) a tone of `frequency` Hz is in what is heard. */
function loudness(frequency) {
  if (!analyser) {
    const audio = new AudioContext();
    analyser = audio.createAnalyser();
    analyser.fftSize = 8192;
    analyser.smoothingTimeConstant = 0;
    audio.createMediaElementSource(video).connect(analyser).connect(audio.destination);
  }
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  return bins[Math.round((frequency * analyser.fftSize) / analyser.context.sampleRate)];
}

const keyframes = document.getElementById("keyframes");
let iframes = null;

let scrubbed = -Infinity;

/**
 * Asks the player's I-frame instance (hls.js) to show the keyframe of a time in the second video element, twice a second
 * at the most, as a bar does on which a finger rests: hls.js 1.7.4 forgets what is asked for while it is starting.
 */
function scrub(seconds) {
  if (!iframes) {
    iframes = adapter.hls.createIFramePlayer();
    iframes.on("hlsError", (_, data) => errors.push(`I-frames: ${data.details} ${data.error?.message}`));
    iframes.attachMedia(keyframes);
  }
  if (performance.now() - scrubbed > 500) {
    scrubbed = performance.now();
    iframes.loadMediaAt(seconds);
  }
}

const ENTITIES = { "&lt;": "<", "&gt;": ">", "&amp;": "&" };
/** A cue's text. Some players keep the source's escapes, others have undone them. */
const plain = (cue) => cue.text.replace(/&lt;|&gt;|&amp;/g, (entity) => ENTITIES[entity]);

const byLanguage = (tracks, language) => tracks.find((track) => track.language?.startsWith(language));

window.player = {
  events, errors, warnings, video, adapter, frameNumber, loudness,
  start: () => start,
  stalls: () => stalls,
  /** The number of the picture that scrubbing to a time shows now. */
  scrub(seconds) { scrub(seconds); return keyframes.videoWidth ? frameNumber(keyframes) : null; },
  play: () => video.play(),
  /** From the beginning again, if it has ended: a short clip may be over before a switch takes effect. */
  repeat() {
    if (!video.ended) return;
    video.currentTime = 0;
    video.play();
  },
  async seek(seconds) {
    const done = new Promise((resolve) => video.addEventListener("seeked", resolve, { once: true }));
    video.currentTime = seconds;
    await done;
  },
  setRung(n) { adapter.setRung(adapter.rungs()[n].id); },
  setAudio(language) { adapter.setAudio(byLanguage(adapter.audios(), language).id); },
  setText(language) { adapter.setText(language === null ? null : byLanguage(adapter.texts(), language).id); },
  audio: () => adapter.audios().find((track) => track.active)?.language ?? null,
  rungs: () => adapter.rungs().map((rung) => rung.height),
  /** The texts of the cues that are shown now. */
  cues: () => [...video.textTracks].filter((track) => track.mode === "showing")
    .flatMap((track) => [...(track.activeCues ?? [])].map(plain)),
  frames: () => whole ?? decoded(),
};

// Short clips are buffered whole at once, and then nothing is left that a switch could show: keep the buffer small where asked.
const SMALL_S = 2;
const shrink = {
  hls: () => Object.assign(adapter.hls.config, { maxBufferLength: SMALL_S, maxMaxBufferLength: SMALL_S }),
  dash: () => adapter.player.updateSettings({ streaming: { buffer: { bufferTimeDefault: SMALL_S, bufferTimeAtTopQuality: SMALL_S } } }),
  shaka: () => adapter.player.configure({ streaming: { bufferingGoal: SMALL_S, rebufferingGoal: 1 } }),
};
if (query.has("small")) shrink[engine.script]?.();

if (query.has("cmcd") && engine.script === "dash") {
  adapter.player.updateSettings({ streaming: { cmcd: { enabled: true, mode: "header" } } });
}

try {
  await adapter.load(query.get("url"));
  events.push("loaded");
} catch (error) {
  if (!error.reported) errors.push(`load: ${error.message}`);
}
