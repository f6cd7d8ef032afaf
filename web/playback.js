// The server's API for gated videos: starting playback, renewing its token, and signing in. Tokens live in memory alone.

export const TOKEN = "CTA-Common-Access-Token";
const LOCAL = ["127.0.0.1", "localhost"];

/** What the API says no with: a problem (RFC 9457), as `explain` gives it. */
export class Refused extends Error {
  constructor(answer) {
    super(answer.detail ?? answer.title ?? answer.code);
    this.answer = answer;
  }
}

/** Reads a problem out of an answer. */
export async function problemOf(response) {
  const type = response.headers.get("content-type") ?? "";
  const told = type.includes("json") ? await response.json().catch(() => ({})) : {};
  return { status: response.status, code: told.code ?? `http_${response.status}`, title: told.title, detail: told.detail, renew: told.renew };
}

async function call(method, url, body, headers = {}) {
  let response;
  try {
    response = await fetch(url, { method, cache: "no-store", body: JSON.stringify(body), headers: { "Content-Type": "application/json", ...headers } });
  } catch {
    throw new Refused({ status: 0, code: "unreachable" });
  }
  if (!response.ok) throw new Refused(await problemOf(response));
  if (response.status === 204) return {};
  const now = Date.parse(response.headers.get("date")) || Date.now(); // the server's clock may be another one than ours
  return { ...(await response.json()), now: now / 1000 };
}

const api = (path) => new URL(`api/v1/${path}`, document.baseURI).href;

/** Who watches: an access token for some minutes, and a cookie that no script can read for the time after. */
export const account = {
  access: "",
  /** Signs in; without a name and a password by the cookie of an earlier time. */
  async signIn(name, password) {
    const told = name ? await call("POST", api("auth/login"), { account: name, password }) : await call("POST", api("auth/refresh"), {});
    this.access = told.access_token;
  },
  headers() { return this.access ? { Authorization: `Bearer ${this.access}` } : {}; },
};

/** One session of a gated video. Players ask it for `token` with each request, and `accept` what the answers bring. */
export class Playback {
  constructor(asset, carriage) {
    this.asset = asset;
    this.carriage = carriage;
    this.token = "";
  }

  async start(password) {
    const body = { carriage: this.carriage, ...(password && { password }) };
    this.take(await call("POST", api(`playback/${encodeURIComponent(this.asset)}`), body, account.headers()));
  }

  /** The next token of the same session. */
  async renew() { this.take(await call("POST", api("playback/renew"), { token: this.token })); }

  /** Ends the session; whoever closes the page in the middle of it leaves it to its lease. */
  async end() { await call("DELETE", api("playback/session"), { token: this.token }).catch(() => {}); }

  take(told) {
    this.token = told.token;
    this.urls = told.urls;
    this.over = performance.now() + 1000 * (told.cap - told.now - 2); // both are whole seconds
  }

  /** Takes the token that an answer brought, if it follows the current one: an answer to an older request brings none that is newer. */
  accept(token, sent) { if (token && sent === this.token) this.token = token; }

  /** What requests carry in their head. */
  headers() { return this.carriage === "header" ? { [TOKEN]: this.token } : {}; }
}

/** The carriage for an engine: what is wanted, if it can be done. Cookies want HTTPS, or this machine. */
export function carriageFor(engine, wanted) {
  const cookies = location.protocol === "https:" || LOCAL.includes(location.hostname);
  const possible = ["header", "cookie", "path"].filter((item) => (item === "header" ? engine.script : item === "path" || cookies));
  return possible.includes(wanted) ? wanted : engine.script ? "header" : "path";
}
