// The page's address: what it asks for, and the key, which only its fragment keeps.
//
// Label Studio puts a task's video into `?video=` as it is, so that comes last and goes up to
// the fragment, whatever it has in it.

const NAMES = ["session", "task", "project", "file"];

/** {session, task, project, file, video}: texts, or null. `video` is a list of readings. */
export function asked(address = location) {
  const { query, video } = parts(address.search);
  const found = Object.fromEntries(NAMES.map((name) => [name, query.get(name)]));
  return { ...found, video: video === null ? null : readings(video) };
}

/** The key of the link, or null; a query's is put into the fragment, which no log ever has. */
export function takeKey() {
  const { query, video } = parts(location.search);
  const key = query.get("key");
  if (key === null) return new URLSearchParams(location.hash.slice(1)).get("key");
  query.delete("key");
  replace(query, video, `#${new URLSearchParams({ key })}`);
  return key;
}

/** Keeps what is open in the address, so that a reload finds it. */
export function keepInAddress(changes) {
  const { query, video } = parts(location.search);
  for (const [name, value] of Object.entries(changes)) query.set(name, value);
  replace(query, video, location.hash);
}

function parts(search) {
  const text = search.replace(/^\?/, "");
  const [, before, video] = /^(|.*?&)video=(.*)$/s.exec(text) ?? [null, text, null];
  return { query: new URLSearchParams(before), video };
}

function replace(query, video, hash) {
  const text = [query.toString(), ...(video === null ? [] : [`video=${video}`])].filter(Boolean);
  history.replaceState(null, "", `${location.pathname}?${text.join("&")}${hash}`);
}

/** With and without escapes: both can be what the task has. */
function readings(text) {
  try {
    return [...new Set([decodeURIComponent(text), text])];
  } catch {
    return [text];
  }
}
