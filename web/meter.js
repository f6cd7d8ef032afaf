// The numbers below the picture, twice a second while the page is seen.
import { rateLabel } from "./players/labels.js";

const PERIOD_MS = 500;
const HISTORY = 120; // a minute
const GRAPH = { width: 600, height: 64 };
const SVG = "http://www.w3.org/2000/svg";

/** Seconds of media from the playhead to the end of the buffered range it is in. */
export function bufferAhead(video) {
  for (let i = 0; i < video.buffered.length; i += 1) {
    if (video.buffered.start(i) - 0.1 <= video.currentTime && video.currentTime <= video.buffered.end(i)) return video.buffered.end(i) - video.currentTime;
  }
  return 0;
}

export class Meter {
  constructor(video, list, graph, engine) {
    this.video = video;
    this.engine = engine;
    this.values = new Map();
    for (const name of ["Player", "Resolution", "Rung", "Throughput", "Buffer", "Frames", "Codecs", "Warnings"]) {
      const value = document.createElement("dd");
      const term = document.createElement("dt");
      term.textContent = name;
      const pair = document.createElement("div");
      pair.append(term, value);
      list.append(pair);
      this.values.set(name, value);
    }
    this.line = document.createElementNS(SVG, "polyline");
    this.area = document.createElementNS(SVG, "polygon");
    graph.append(this.area, this.line);
    this.start(null);
    setInterval(() => document.hidden || this.draw(), PERIOD_MS);
  }

  start(player) {
    this.player = player;
    this.history = [];
    this.warnings = [];
    this.draw();
  }

  warned(detail) {
    this.warnings.push(detail.code);
    console.info(`${this.engine()}: ${detail.code} ${detail.detail ?? ""}`);
  }

  draw() {
    const { video } = this;
    const stats = this.player?.stats() ?? {};
    const frames = video.getVideoPlaybackQuality?.() ?? { totalVideoFrames: 0, droppedVideoFrames: 0 };
    const ahead = bufferAhead(video);
    const rows = {
      Player: this.engine(),
      Resolution: video.videoWidth ? `${video.videoWidth} × ${video.videoHeight}` : "–",
      Rung: rateLabel(stats.bandwidth),
      Throughput: rateLabel(stats.throughput),
      Buffer: `${ahead.toFixed(1)} s`,
      Frames: `${frames.totalVideoFrames - frames.droppedVideoFrames} shown · ${frames.droppedVideoFrames} dropped`,
      Codecs: stats.codecs || "–",
      Warnings: this.warnings.length ? `${this.warnings.length} · ${this.warnings.at(-1)}` : "none",
    };
    for (const [name, text] of Object.entries(rows)) {
      const node = this.values.get(name);
      if (node.textContent !== text) node.textContent = text;
    }
    this.history.push(ahead);
    if (this.history.length > HISTORY) this.history.shift();
    const top = Math.max(10, ...this.history);
    const x = (n) => (GRAPH.width * (HISTORY - this.history.length + n)) / (HISTORY - 1);
    const points = this.history.map((value, n) => `${x(n).toFixed(1)},${(GRAPH.height - 2 - (GRAPH.height - 6) * value / top).toFixed(1)}`);
    this.line.setAttribute("points", points.join(" "));
    this.area.setAttribute("points", [`${x(0).toFixed(1)},${GRAPH.height}`, ...points, `${GRAPH.width},${GRAPH.height}`].join(" "));
  }
}
