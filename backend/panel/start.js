// From the page's address to a session: which task or video, and whose work goes on.

import { ApiError } from "./api.js";
import { element, part, setText } from "./dom.js";
import { browser, recall, remember } from "./memory.js";
import { ask } from "./notices.js";
import { Session } from "./session.js";

const MOST_REMEMBERED = 50;

/** What the address asks for: {session, task, project, video, file}, texts or null. */
export function asked() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(
    ["session", "task", "project", "video", "file"].map((name) => [name, query.get(name)]),
  );
}

/** Keeps what is open in the address, so that a reload finds it. */
export function keepInAddress(changes) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null) url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  history.replaceState(null, "", url);
}

/** {session, task}: task is null for a video without one. Rejects with what the service says. */
export async function begin(api, query = asked()) {
  if (query.session) {
    const found = await opened(api, query.session);
    if (found) return found;
  }
  if (query.task) return onTask(api, await choiceOfTask(api, query.task));
  if (query.file) return onFile(api, query.file);
  if (query.video) return onTask(api, await taskOfVideo(api, query));
  if (query.project) return onTask(api, await taskOfProject(api, query.project));
  return onFile(api, await askForFile());
}

/** A new session on what a session was on, from what is there now. */
export async function beginAgain(api, task, query = asked()) {
  if (task) return withVersion(await Session.create(api, { task_id: task.id }), await choiceOfTask(api, task.id));
  if (query.file) return { session: await Session.create(api, { video: query.file }), task: null };
  return begin(api, { ...query, session: null });
}

/** Null when the session is gone for good. */
async function opened(api, id) {
  let session;
  try {
    session = await Session.open(api, id);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
  if (session.taskId === null) return { session, task: null };
  return withVersion(session, await choiceOfTask(api, session.taskId));
}

async function onFile(api, file) {
  keepInAddress({ file });
  return { session: await Session.create(api, { video: file }), task: null };
}

// --- tasks ---------------------------------------------------------------------

function choiceOfTask(api, id) {
  return api.get(`api/panel/tasks/${encodeURIComponent(id)}`);
}

async function onTask(api, task) {
  keepInAddress({ task: task.id });
  const mine = remembered()[task.id]?.session;
  const found = mine && await opened(api, mine);
  if (found) return found;
  const others = (await api.get(`api/sessions?task_id=${task.id}`)).sessions;
  if (others.length) {
    const { id, used_at: usedAt } = others[0];
    const answer = await ask(
      "Somebody has worked on this task here",
      `A session of ${timeText(usedAt)} is kept. Two people who go on with one session change `
      + "each other's work; a new one begins with what Label Studio has.",
      { new: "Begin a new one", go: "Go on with it" },
    );
    const kept = answer === "go" && await opened(api, id);
    if (kept) return kept;
  }
  return withVersion(await Session.create(api, { task_id: task.id }), task);
}

/** The task's version is that of when the session began, also after a reload. */
function withVersion(session, task) {
  const known = remembered()[task.id];
  const version = known?.session === session.id ? known.version : task.version;
  rememberTask(task.id, session.id, version);
  return { session, task: { ...task, version } };
}

function remembered() {
  return recall(browser, "tasks") ?? {};
}

export function rememberTask(taskId, session, version) {
  const { [taskId]: _, ...others } = remembered();
  const newest = Object.entries(others).sort(([, a], [, b]) => b.at - a.at);
  const kept = Object.fromEntries(newest.slice(0, MOST_REMEMBERED - 1));
  remember(browser, "tasks", { ...kept, [taskId]: { session, version, at: Date.now() } });
}

async function taskOfVideo(api, { video, project }) {
  const query = new URLSearchParams({ video, ...(project ? { project } : {}) });
  const { tasks } = await api.get(`api/panel/tasks?${query}`);
  if (tasks.length === 0) {
    throw new ApiError(404, "no such task", `No task that this link may open has the video ${video}.`);
  }
  const chosen = tasks.length === 1 ? tasks[0]
    : await choose(`${tasks.length} tasks have this video. Which one?`, tasks);
  return choiceOfTask(api, chosen.id);
}

async function taskOfProject(api, project) {
  for (let page = 1; ; ) {
    const query = new URLSearchParams({ project, page });
    const { tasks, total } = await api.get(`api/panel/tasks?${query}`);
    const pages = Math.max(1, Math.ceil(total / 50));
    const title = tasks[0]?.project_title ?? `project ${project}`;
    const text = total ? `${title}: ${total} tasks.` : `There are no tasks in ${title}.`;
    const chosen = await choose(text, tasks, { page, pages });
    if (typeof chosen !== "number") return choiceOfTask(api, chosen.id);
    page = chosen;
  }
}

// --- what a person is asked ------------------------------------------------------

/** Resolves to the chosen task, or to the number of another page. */
function choose(text, tasks, { page = 1, pages = 1 } = {}) {
  showStart(text);
  part("start-pages").hidden = pages < 2;
  setText(part("start-page"), `Page ${page} of ${pages}`);
  part("start-back").disabled = page <= 1;
  part("start-next").disabled = page >= pages;
  return new Promise((resolve) => {
    part("start-back").onclick = () => resolve(page - 1);
    part("start-next").onclick = () => resolve(page + 1);
    part("start-choices").replaceChildren(...tasks.map((task) => {
      const button = element(
        "button", { type: "button" },
        element("b", {}, `Task ${task.id}`), ` ${task.shown} `,
        element("span", { className: "quiet" }, countsText(task)),
      );
      button.addEventListener("click", () => resolve(task));
      return element("li", {}, button);
    }));
  }).finally(() => showStart("Opening …"));
}

function askForFile() {
  showStart("Open a video, or use the link of a Label Studio task.");
  part("start-form").hidden = false;
  return new Promise((resolve) => {
    part("start-form").onsubmit = (event) => {
      event.preventDefault();
      showStart("Opening …");
      resolve(part("start-file").value.trim());
    };
  });
}

/** The page before a session is there, with this to read. */
export function showStart(text) {
  part("workspace").hidden = true;
  part("start").hidden = false;
  part("start-form").hidden = true;
  part("start-pages").hidden = true;
  part("start-choices").replaceChildren();
  setText(part("start-text"), text);
}

export function showWorkspace() {
  part("start").hidden = true;
  part("workspace").hidden = false;
}

function countsText({ annotations, predictions }) {
  return `${annotations} annotations, ${predictions} predictions`;
}

function timeText(at) {
  const time = new Date(typeof at === "number" ? 1000 * at : at);
  return Number.isNaN(time.getTime()) ? "before" : time.toLocaleString();
}
