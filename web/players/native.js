import { trackLabel } from "./labels.js";

export class Native {
  constructor(video, report) {
    this.video = video;
    this.report = report;
    this.aborter = new AbortController();
    const { signal } = this.aborter;
    video.addEventListener("error", () => report("error", {
      code: `media error ${video.error?.code}`, detail: video.error?.message ?? "", url: this.url,
    }), { signal });
    video.addEventListener("resize", () => report("switched"), { signal });
    for (const list of [video.textTracks, video.audioTracks]) {
      for (const event of ["addtrack", "removetrack", "change"]) list?.addEventListener(event, () => report("changed"), { signal });
    }
  }

  load(url) {
    this.url = url;
    return new Promise((resolve, reject) => {
      this.video.addEventListener("loadedmetadata", resolve, { once: true, signal: this.aborter.signal });
      this.video.addEventListener("error", () => reject(Object.assign(new Error("media error"), { reported: true })), { once: true, signal: this.aborter.signal });
      this.video.src = url;
    });
  }

  rungs() { return []; }

  setRung() {}

  audios() {
    return Array.from(this.video.audioTracks ?? [], (track, id) => ({ id, language: track.language, label: trackLabel(track, id), active: track.enabled }));
  }

  setAudio(id) { Array.from(this.video.audioTracks, (track, n) => { track.enabled = n === id; }); }

  texts() {
    return Array.from(this.video.textTracks, (track, id) => ({ id, language: track.language, label: trackLabel(track, id), active: track.mode === "showing" }));
  }

  setText(id) { Array.from(this.video.textTracks, (track, n) => { track.mode = n === id ? "showing" : "disabled"; }); }

  trickPlay(rate) { this.video.playbackRate = rate; }

  stats() { return {}; }

  destroy() {
    this.aborter.abort();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
