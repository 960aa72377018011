// What the browser remembers. Inside another site's page it may refuse to: then nothing is.

const PREFIX = "sam2-panel";

export function recall(storage, name) {
  try {
    return JSON.parse(storage().getItem(`${PREFIX} ${name}`));
  } catch {
    return null;
  }
}

export function remember(storage, name, value) {
  try {
    if (value === null) storage().removeItem(`${PREFIX} ${name}`);
    else storage().setItem(`${PREFIX} ${name}`, JSON.stringify(value));
  } catch {
    // As said: it is only a convenience.
  }
}

/** For this tab, which a reload keeps; functions, as looking at them may be refused. */
export const tab = () => sessionStorage;

/** For this browser. */
export const browser = () => localStorage;
