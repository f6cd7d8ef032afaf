// Four players behind one small interface. Every adapter is made with (video, report, playback), where playback is the
// session of a gated video (see playback.js), and offers
//   load(url)            resolves when the manifest is known
//   rungs() audios() texts()   [{id, label, language?, height?, bandwidth?, active}]; rungs ascending by bandwidth
//   setRung(id | null)   null: let the player choose
//   setAudio(id)   setText(id | null)
//   trickPlay(rate)      fast forward, with I-frames where the player can; 1 ends it
//   stats()              {bandwidth (bit/s of the rung that plays), throughput (bit/s), codecs}
//   destroy()
// `report(kind, detail)` is called with kind "changed", "switched", "warning" or "error" (fatal).

import { problemOf } from "./playback.js";
import { DashJs } from "./players/dash.js";
import { HlsJs } from "./players/hls.js";
import { Native } from "./players/native.js";
import { Shaka } from "./players/shaka.js";

const scripts = new Map();

/** Loads a classic script once; resolves when it has run. */
export function loadScript(url) {
  if (!scripts.has(url)) {
    scripts.set(url, new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = url;
      element.onload = resolve;
      element.onerror = () => {
        scripts.delete(url);
        element.remove();
        reject(Object.assign(new Error(`The player's script could not be loaded: ${url}`), { code: "player_script" }));
      };
      document.head.append(element);
    }));
  }
  return scripts.get(url);
}

const mediaSource = () => typeof (window.ManagedMediaSource ?? window.MediaSource) === "function";

/** What can be chosen: `manifest` names the address of an asset, `script` the library of the page. */
export const ENGINES = [
  { id: "hls", label: "hls.js", manifest: "hls", script: "hls", adapter: HlsJs, usable: mediaSource },
  { id: "dash", label: "dash.js", manifest: "dash", script: "dash", adapter: DashJs, usable: mediaSource },
  { id: "shaka-hls", label: "Shaka · HLS", manifest: "hls", script: "shaka", adapter: Shaka, usable: mediaSource },
  { id: "shaka-dash", label: "Shaka · DASH", manifest: "dash", script: "shaka", adapter: Shaka, usable: mediaSource },
  {
    id: "native", label: "Browser’s own HLS", manifest: "hls", adapter: Native,
    usable: () => document.createElement("video").canPlayType("application/vnd.apple.mpegurl") !== "",
  },
];

/** Makes the adapter of an engine; `libraries` maps its `script` to a URL; `playback` is a gated video's session. */
export async function createPlayer(engine, video, report, libraries, playback = null) {
  if (engine.script) await loadScript(libraries[engine.script]);
  return new engine.adapter(video, report, playback);
}

/** Why a URL failed, in words: the server's problem document (RFC 9457) where it sent one. */
export async function explain(url, headers = {}) {
  if (!url || !/^https?:/.test(new URL(url, location.href).href)) return null;
  try {
    const response = await fetch(url, { cache: "no-store", headers: { Range: "bytes=0-0", ...headers } });
    return response.ok ? null : await problemOf(response);
  } catch {
    return { status: 0, code: "unreachable", detail: "The server cannot be reached." };
  }
}
