import { ascending, rungLabel, trackLabel } from "./labels.js";

function carry(playback, xhr, url) {
  xhr.open("GET", url, true); // hls.js leaves it to us if we do, and fields can be set only then
  const sent = playback.token;
  for (const [name, value] of Object.entries(playback.headers())) {
    xhr.setRequestHeader(name, value);
    xhr.addEventListener("load", () => playback.accept(xhr.getResponseHeader(name), sent));
  }
}

export class HlsJs {
  constructor(video, report, playback) {
    this.video = video;
    this.report = report;
    const Hls = window.Hls;
    this.hls = new Hls({ backBufferLength: 30, ...(playback && { xhrSetup: (xhr, url) => carry(playback, xhr, url) }) });
    const { Events } = Hls;
    for (const event of [Events.MANIFEST_PARSED, Events.AUDIO_TRACKS_UPDATED, Events.SUBTITLE_TRACKS_UPDATED,
      Events.AUDIO_TRACK_SWITCHED, Events.SUBTITLE_TRACK_SWITCH]) this.hls.on(event, () => report("changed"));
    this.hls.on(Events.LEVEL_SWITCHED, () => report("switched"));
    this.hls.on(Events.ERROR, (_, data) => report(data.fatal || data.response?.code === 401 ? "error" : "warning", {
      code: data.details, detail: data.error?.message ?? "", url: data.response?.url ?? data.url ?? data.frag?.url,
    }));
  }

  load(url) {
    const { Events } = window.Hls;
    return new Promise((resolve, reject) => {
      this.hls.once(Events.MANIFEST_PARSED, resolve);
      this.hls.on(Events.ERROR, (_, data) => data.fatal && reject(Object.assign(new Error(data.details), { reported: true })));
      this.hls.loadSource(url);
      this.hls.attachMedia(this.video);
    });
  }

  rungs() {
    return ascending(this.hls.levels.map((level, id) => ({
      id, height: level.height, bandwidth: level.bitrate, active: id === this.hls.currentLevel, label: rungLabel({ height: level.height, bandwidth: level.bitrate }),
    })));
  }

  setRung(id) { this.hls.nextLevel = id ?? -1; }

  audios() {
    return this.hls.audioTracks.map((track, id) => ({ id, language: track.lang, label: trackLabel(track, id), active: id === this.hls.audioTrack }));
  }

  setAudio(id) { this.hls.audioTrack = id; }

  texts() {
    return this.hls.subtitleTracks.map((track, id) => ({ id, language: track.lang, label: trackLabel(track, id), active: id === this.hls.subtitleTrack }));
  }

  setText(id) {
    this.hls.subtitleDisplay = id !== null;
    this.hls.subtitleTrack = id ?? -1;
  }

  trickPlay(rate) { this.video.playbackRate = rate; }

  stats() {
    const level = this.hls.levels[this.hls.currentLevel];
    return { bandwidth: level?.bitrate, throughput: this.hls.bandwidthEstimate, codecs: [level?.videoCodec, level?.audioCodec].filter(Boolean).join(", ") };
  }

  destroy() { this.hls.destroy(); }
}
