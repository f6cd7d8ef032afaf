import { ascending, rungLabel, trackLabel } from "./labels.js";

export class DashJs {
  constructor(video, report, playback) {
    this.video = video;
    this.report = report;
    const { MediaPlayer, Debug } = window.dashjs;
    this.player = MediaPlayer().create();
    this.ready = false; // dash.js throws when it is asked about tracks before it has a stream
    this.player.updateSettings({ debug: { logLevel: Debug.LOG_LEVEL_WARNING }, streaming: { text: { defaultEnabled: false } } });
    if (playback) this.carry(playback);
    const { events } = MediaPlayer;
    for (const event of [events.STREAM_INITIALIZED, events.TEXT_TRACKS_ADDED, events.TRACK_CHANGE_RENDERED]) this.player.on(event, () => this.ready && report("changed"));
    this.player.on(events.QUALITY_CHANGE_RENDERED, () => report("switched"));
    // dash.js has one kind of error event and ends playback after it.
    const failed = ({ error }) => report("error", {
      code: error?.code ? `dash.js ${error.code}` : String(error), detail: error?.message ?? "", url: error?.data?.request?.url ?? error?.data?.url,
    });
    this.player.on(events.ERROR, failed);
    this.player.on(events.PLAYBACK_ERROR, failed);
  }

  carry(playback) {
    this.player.addRequestInterceptor(async (request) => {
      Object.assign(request.headers ??= {}, playback.headers());
      return request;
    });
    this.player.addResponseInterceptor(async (response) => {
      const { headers = {} } = response.request;
      for (const name of Object.keys(playback.headers())) playback.accept(response.headers?.[name.toLowerCase()], headers[name]);
      // It would try again and again.
      if (response.status === 401) this.report("error", { code: "dash.js 401", detail: "", url: response.request.url });
      return response;
    });
  }

  load(url) {
    const { events } = window.dashjs.MediaPlayer;
    return new Promise((resolve, reject) => {
      this.player.on(events.STREAM_INITIALIZED, () => {
        this.ready = true;
        resolve();
      });
      this.player.on(events.ERROR, ({ error }) => reject(Object.assign(new Error(error?.message ?? String(error)), { reported: true })));
      this.player.initialize(this.video, url, false);
    });
  }

  rungs() {
    if (!this.ready) return [];
    const current = this.player.getCurrentRepresentationForType("video");
    return ascending(this.player.getRepresentationsByType("video").map((r) => ({
      id: r.id, height: r.height, bandwidth: r.bandwidth, active: r.id === current?.id, label: rungLabel(r),
    })));
  }

  setRung(id) {
    this.player.updateSettings({ streaming: { abr: { autoSwitchBitrate: { video: id === null } } } });
    if (id !== null) this.player.setRepresentationForTypeById("video", id, true); // at once: drop what is buffered
  }

  audios() {
    if (!this.ready) return [];
    const current = this.player.getCurrentTrackFor("audio");
    return this.player.getTracksFor("audio").map((track, n) => ({
      id: n, language: track.lang, label: trackLabel({ lang: track.lang, label: track.labels?.[0]?.text }, n), active: track.index === current?.index,
    }));
  }

  setAudio(id) { this.player.setCurrentTrack(this.player.getTracksFor("audio")[id]); }

  texts() {
    if (!this.ready) return [];
    const current = this.player.isTextEnabled() ? this.player.getCurrentTextTrackIndex() : -1;
    return this.player.getTracksFor("text").map((track, n) => ({
      id: n, language: track.lang, label: trackLabel({ lang: track.lang, label: track.labels?.[0]?.text }, n), active: n === current,
    }));
  }

  setText(id) {
    this.player.enableText(id !== null);
    this.player.setTextTrack(id ?? -1);
  }

  trickPlay(rate) { this.player.setPlaybackRate(rate); }

  stats() {
    if (!this.ready) return {};
    const current = this.player.getCurrentRepresentationForType("video");
    return { bandwidth: current?.bandwidth, throughput: this.player.getAverageThroughput("video") * 1000, codecs: current?.codecs };
  }

  destroy() { this.player.destroy(); }
}
