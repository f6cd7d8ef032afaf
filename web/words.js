// Failures in the viewer's words. `answer` is what the server said about the URL that failed, `failure` what the player said.

const BY_CODE = {
  unreachable: ["The server cannot be reached.", "Check the connection, or whether the server still runs."],
  asset_preparing: ["This video is still being prepared.", "Try again in a moment."],
  asset_not_found: ["This video is gone.", "It is no longer in the folder that is served."],
  rendition_gone: ["This video was replaced meanwhile.", "Try again to load the new version."],
  source_changed: ["This video was replaced meanwhile.", "Try again to load the new version."],
  session_ended: ["Playback was ended.", "Try again to begin anew."],
  token_revoked: ["Playback was ended.", "Try again to begin anew."],
  too_many_streams: ["As many videos are playing as may play at once.", "End another one, then try again."],
  playback_denied: ["You may not watch this video.", ""],
  rate_limited: ["That was too often.", "Try again in a minute."],
  auth_unavailable: ["The server is busy.", "Try again in a moment."],
  lease_unavailable: ["The server is busy.", "Try again in a moment."],
  overloaded: ["The server is busy.", "Try again in a moment."],
  stopping: ["The server is stopping.", "Try again in a moment."],
  player_script: ["The player could not be loaded.", "Try another player, or load the page again."],
};

const BY_STATUS = {
  401: "You need to sign in to watch this video.",
  403: "You may not watch this video.",
  404: "There is nothing at this address.",
  410: "This version of the video is gone.",
  422: "This video cannot be played.",
};

const byStatus = (status) => BY_STATUS[status] ?? (status >= 500 ? "Something went wrong on the server." : "The video cannot be loaded.");

/** A title and a detail for people; the detail ends with the code, for whoever asks for help. */
export function describeFailure(failure, answer) {
  if (answer) {
    const [title, hint] = BY_CODE[answer.code] ?? [byStatus(answer.status), ""];
    return { title, detail: [answer.detail ?? answer.title, hint, `(${answer.code})`].filter(Boolean).join(" ") };
  }
  const known = BY_CODE[failure.code];
  if (known) return { title: known[0], detail: `${known[1]} (${failure.code})` };
  return { title: "The player gave up.", detail: `${failure.detail || "It did not say why."} Another player may do better. (${failure.code})` };
}
