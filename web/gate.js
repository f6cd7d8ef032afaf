// The way into a gated video: asks the viewer for what its policy wants, and keeps the session going that comes of it.
import { account, carriageFor, Playback, Refused } from "./playback.js";

const ENDED = ["session_ended", "token_revoked"]; // somebody ended it: the viewer decides whether it begins anew
const STUCK_MS = 5000; // refused again so soon after a renewal, at the same place: another one would not help

export class Gate {
  constructor(form) {
    this.form = form;
    this.playback = null;
    this.passwords = new Map(); // asset -> what let the viewer in, for when a session must begin anew
    this.turn = 0; // rises with every entering, so that one which comes late is dropped
    this.renewed = { time: -Infinity, position: 0 };
  }

  /** The session to play the asset in with this engine: the one there is, if it will do. Null for an open asset. */
  async enter(asset, engine, wanted) {
    this.close();
    const mine = ++this.turn;
    const carriage = carriageFor(engine, wanted);
    const old = this.playback;
    if (asset?.gated && old?.asset === asset.id && old.carriage === carriage) return old;
    this.playback = null;
    old?.end();
    if (!asset?.gated) return null;
    const playback = new Playback(asset.id, carriage);
    await this.start(playback, asset);
    if (mine === this.turn) this.playback = playback;
    else playback.end();
    return this.playback;
  }

  async start(playback, asset) {
    let remembered = true; // a sign-in of an earlier time may still count
    for (;;) {
      try {
        return await playback.start(this.passwords.get(asset.id));
      } catch (error) {
        const code = error.answer?.code;
        if (code === "password_wrong") {
          const wrong = this.passwords.delete(asset.id);
          this.passwords.set(asset.id, (await this.ask(asset, false, wrong ? "This is not the password." : "")).password);
        } else if (code === "sign_in_required") {
          if (!remembered || !(await account.signIn().then(() => true, () => false))) await this.signIn(asset);
          remembered = false;
        } else throw error;
      }
    }
  }

  async signIn(asset) {
    for (let problem = ""; ;) {
      const { account: name, password } = await this.ask(asset, true, problem);
      try {
        return await account.signIn(name, password);
      } catch (error) {
        if (error.answer?.code !== "sign_in_failed") throw error;
        problem = "There is no such account, or this is not its password.";
      }
    }
  }

  /** What the viewer writes into the form; never, if the viewer goes elsewhere. */
  ask(asset, named, problem) {
    const { form } = this;
    const { account: name, password } = form.elements;
    form.querySelector("[name=title]").textContent = named ? "Sign in to watch this video" : "This video needs a password";
    form.querySelector("[role=alert]").textContent = problem;
    const preview = form.querySelector("a");
    preview.hidden = !asset.preview;
    preview.href = `#asset=${encodeURIComponent(asset.id)}~preview`;
    name.closest("label").hidden = name.disabled = !named;
    password.value = "";
    form.hidden = false;
    (named && !name.value ? name : password).focus();
    return new Promise((resolve) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        this.close();
        resolve({ account: name.value, password: password.value });
      };
    });
  }

  close() {
    this.form.hidden = true;
    this.form.onsubmit = null;
  }

  /**
   * After a refusal at `position`: whether loading again helps, by the next token of the session or by another session.
   * `answer`: what the server said of the address that failed; null: it gives it by now.
   */
  async recover(answer, position) {
    const { playback, renewed } = this;
    if (!playback || (answer && answer.status !== 401)) return false;
    const over = performance.now() > playback.over;
    if (answer && ENDED.includes(answer.code) && !over) {
      this.playback = null;
      return false;
    }
    if (performance.now() - renewed.time < STUCK_MS && Math.abs(position - renewed.position) < 0.5) return false;
    this.renewed = { time: performance.now(), position };
    if (!answer) return true;
    try {
      if (!over && answer.renew) return await playback.renew().then(() => true);
    } catch (error) {
      if (!(error instanceof Refused) || error.answer.status !== 401 || ENDED.includes(error.answer.code)) throw error;
    }
    this.playback = null;
    playback.end();
    return true;
  }
}
