import { ascending, rungLabel, trackLabel } from "./labels.js";

const SAFE_S = 1; // what stays buffered ahead when the viewer switches: enough not to stall

export class Shaka {
  constructor(video, report, playback) {
    this.video = video;
    this.report = report;
    window.shaka.polyfill.installAll();
    this.player = new window.shaka.Player();
    for (const event of ["trackschanged", "textchanged", "variantchanged", "texttrackvisibility"]) this.player.addEventListener(event, () => report("changed"));
    for (const event of ["adaptation", "mediaqualitychanged"]) this.player.addEventListener(event, () => report("switched"));
    if (playback) this.carry(playback);
    this.player.addEventListener("error", ({ detail }) => this.failed(detail));
  }

  carry(playback) {
    // Shaka's own renewal takes whatever token comes last, for all of a host.
    this.player.configure("networking.commonAccessTokenHeaderName", "");
    const network = this.player.getNetworkingEngine();
    network.registerRequestFilter((_, request) => { Object.assign(request.headers, playback.headers()); });
    network.registerResponseFilter((_, response) => {
      const sent = response.originalRequest.headers;
      for (const name of Object.keys(playback.headers())) playback.accept(response.headers[name.toLowerCase()], sent[name]);
    });
  }

  failed(error) {
    const fatal = error.severity === window.shaka.util.Error.Severity.CRITICAL;
    this.report(fatal ? "error" : "warning", {
      code: `Shaka ${error.code}`, detail: error.message ?? "", url: error.data?.find((item) => typeof item === "string" && /^https?:/.test(item)),
    });
  }

  async load(url) {
    try {
      await this.player.attach(this.video);
      await this.player.load(url);
    } catch (error) {
      if (error.code === window.shaka.util.Error.Code.LOAD_INTERRUPTED) throw Object.assign(error, { reported: true });
      this.failed(error);
      throw Object.assign(error, { reported: true });
    }
  }

  rungs() {
    return ascending(this.player.getVideoTracks().map((track, id) => ({
      id, height: track.height, bandwidth: track.bandwidth, active: track.active, label: rungLabel(track),
    })));
  }

  setRung(id) {
    this.player.configure("abr.enabled", id === null);
    if (id !== null) this.player.selectVideoTrack(this.player.getVideoTracks()[id], true, SAFE_S);
  }

  audios() {
    return this.player.getAudioTracks().map((track, id) => ({ id, language: track.language, label: trackLabel(track, id), active: track.active }));
  }

  setAudio(id) { this.player.selectAudioTrack(this.player.getAudioTracks()[id], SAFE_S); }

  texts() {
    return this.player.getTextTracks().map((track, id) => ({ id, language: track.language, label: trackLabel(track, id), active: track.active }));
  }

  setText(id) { this.player.selectTextTrack(id === null ? null : this.player.getTextTracks()[id]); }

  trickPlay(rate) {
    if (rate === 1) this.player.cancelTrickPlay();
    else this.player.trickPlay(rate, true);
  }

  stats() {
    const stats = this.player.getStats();
    return { bandwidth: stats.streamBandwidth, throughput: stats.estimatedBandwidth, codecs: stats.currentCodecs };
  }

  destroy() { return this.player.destroy(); }
}
