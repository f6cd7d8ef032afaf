// How tracks and rungs are called in menus.

const languageNames = typeof Intl.DisplayNames === "function" ? new Intl.DisplayNames(undefined, { type: "language" }) : null;

export function languageName(code) {
  if (!code || code === "und") return "";
  try {
    return languageNames?.of(code) ?? code;
  } catch {
    return code;
  }
}

/** The name that the manifest gives, else the language's name. */
export function trackLabel(track, n) {
  return track.name || track.label || languageName(track.lang || track.language) || `Track ${n + 1}`;
}

export function rateLabel(bitsPerSecond) {
  if (!Number.isFinite(bitsPerSecond) || bitsPerSecond <= 0) return "–";
  return bitsPerSecond >= 1e6 ? `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s` : `${Math.round(bitsPerSecond / 1e3)} kbit/s`;
}

export function rungLabel(rung) {
  const size = rung.height ? `${rung.height}p` : "Video";
  return rung.bandwidth ? `${size} · ${rateLabel(rung.bandwidth)}` : size;
}

/** Sorts rungs by bandwidth, in place. */
export const ascending = (rungs) => rungs.sort((a, b) => a.bandwidth - b.bandwidth);
