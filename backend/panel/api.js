// Requests to the service: the key in a header, errors as errors, patience where it helps.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;
const BUSY_TRIES = 30;
const BUSY = 429;
const NOT_READY = 503; // the model is loading; this too is said before anything is done
const GATEWAY = new Set([502, 503, 504]); // without our JSON: a proxy whose server is away

/** What the service answered instead of what was asked for. */
export class ApiError extends Error {
  constructor(status, name, detail, retrySeconds = 2) {
    super(detail || name || `The service answered ${status}.`);
    this.status = status;
    this.title = name || `error ${status}`;
    this.retrySeconds = retrySeconds;
  }

  /** Whether the same may be answered later, and nothing was done. */
  get isPassing() {
    return this.status === BUSY || this.status === NOT_READY;
  }
}

/** No answer at all. */
export class Unreachable extends Error {
  constructor() {
    super("The service cannot be reached.");
    this.title = "no connection";
  }
}

export class Api {
  /**
   * `base`: the URL of the service's root. `key`: of the link, or null.
   * `onConnection({isUp, reason})` is told when the service goes away, is busy, and is back.
   */
  constructor(base, key, onConnection) {
    this._base = base;
    this._key = key;
    this._onConnection = onConnection;
    this._isUp = true;
  }

  get(path, options) {
    return this._json("GET", path, undefined, options);
  }

  put(path, body) {
    return this._json("PUT", path, body);
  }

  post(path, body = {}) {
    return this._json("POST", path, body);
  }

  delete(path) {
    return this._json("DELETE", path, {});
  }

  async blob(path, options) {
    return (await this._answer("GET", path, undefined, options)).blob();
  }

  /** A file: its blob and the name that the service gives it. */
  async file(path) {
    const answer = await this._answer("GET", path);
    const name = /filename="?([^";]+)"?/.exec(answer.headers.get("Content-Disposition") ?? "");
    return { blob: await answer.blob(), name: name ? name[1] : null };
  }

  /** The objects of an ndjson answer, as they come; null for a line that only says "still here". */
  async *lines(path, options) {
    const answer = await this._once("GET", path, undefined, options);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
      for (;;) {
        const { value, done } = await reader.read().catch((error) => {
          throw error.name === "AbortError" ? error : new Unreachable();
        });
        if (done) return;
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) yield line ? JSON.parse(line) : null;
      }
    } finally {
      reader.cancel().catch(() => {});
    }
  }

  /** Tells whether the service can be reached, for one who asks again and again by itself. */
  noteUp() {
    this._note(true);
  }

  noteDown(reason) {
    this._note(false, reason);
  }

  async _json(method, path, body, options) {
    const answer = await this._answer(method, path, body, options);
    return answer.status === 204 ? null : answer.json();
  }

  /** Asks again while the service is away or busy, where asking twice does no harm. */
  async _answer(method, path, body, options = {}) {
    let pause = FIRST_PAUSE_MS;
    for (let tries = 1; ; tries += 1) {
      try {
        const answer = await this._once(method, path, body, options);
        this._note(true);
        return answer;
      } catch (error) {
        if (error.isPassing && (error.status === NOT_READY || tries < BUSY_TRIES)) {
          this._note(false, error.message);
          await sleep(1000 * error.retrySeconds, options.signal);
        } else if (error instanceof Unreachable && method !== "POST") {
          this._note(false, error.message);
          await sleep(pause, options.signal);
          pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
        } else {
          throw error;
        }
      }
    }
  }

  async _once(method, path, body, { signal } = {}) {
    const headers = {};
    if (this._key) headers["X-SAM2-Key"] = this._key;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer;
    try {
      answer = await fetch(new URL(path, this._base), {
        method, headers, signal, credentials: "same-origin", redirect: "error",
        body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      throw error.name === "AbortError" ? error : new Unreachable();
    }
    if (answer.ok) return answer;
    const said = await answer.json().catch(() => null);
    if (said === null && GATEWAY.has(answer.status)) throw new Unreachable();
    const retrySeconds = Number(answer.headers.get("Retry-After")) || undefined;
    throw new ApiError(answer.status, said?.error, said?.detail, retrySeconds);
  }

  _note(isUp, reason) {
    if (isUp && this._isUp) return;
    this._isUp = isUp;
    this._onConnection({ isUp, reason });
  }
}

/** Resolves after so long; rejects with AbortError when the signal says so. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("aborted", "AbortError"));
    }, { once: true });
  });
}

/** The path of one of a session's things; every part may be any text. */
export function sessionPath(id, ...parts) {
  return ["api/sessions", ...[id, ...parts].map((part) => encodeURIComponent(part))].join("/");
}
