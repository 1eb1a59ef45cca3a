// Trainings: the list, one of them live, several compared.

import { ask, call, eventsOf, get, NoKey, path, Refused, remove, Unreachable } from "./api.js";
import { Curve, LossChart } from "./chart.js";
import { at, bytes, count, define, duration, element, keepAtTheEnd, keepingFocus, kept, loss, moment } from "./dom.js";
import { complain, goTo, Mistake, say, telling } from "./say.js";

const PAGE = 20;
/** The most that the service gives at once. */
const MOST_AT_ONCE = 100;
const MOST_COMPARED = 8;
const MOST_SAMPLES = 50;
const REFRESH = 2000;
/** So many times less often where nothing is known to move. */
const SELDOM = 5;
const AGAIN = 1500;
const SOON = 300;
const LIVE = new Set(["queued", "running"]);
/** Answers that another moment may change. */
const LATER = new Set([429, 502, 503, 504]);
const KEPT = "charsmith-compared";
const QUIET = { quiet: true };
const AWAY = "The service cannot be reached; trying again …";

let shown = [];
let wanted = PAGE;
let listings = 0;
const rows = new Map(); // id -> what is shown of a training in the list
let run = null; // the one that is looked at: { job, curve, follower }
let follower = null; // an AbortController, from the moment on that it is asked for
let workers = null; // how many there are, while the one that is looked at waits for one
let chart = null;
const compared = new Map(); // id -> { job, curve }

export function begin() {
  chart = new LossChart(at("run-curve"));
  at("runs-more").addEventListener("click", telling(more));
  for (const act of ["pause", "resume", "cancel"]) at(`run-${act}`).addEventListener("click", telling(() => change(act)));
  at("run-delete").addEventListener("click", telling(drop));
  at("run-download").addEventListener("click", telling(() => download("safetensors")));
  at("run-download-onnx").addEventListener("click", telling(() => download("onnx")));
  at("run-write").addEventListener("click", () => {
    location.hash = `#write/${run.job.model_id}`;
  });
  setInterval(refresh, REFRESH);
  before = kept(KEPT) ?? [];
  keepAtTheEnd(KEPT, () => [...compared.keys(), ...before]);
}

let before = []; // ids of what was compared before the page was loaded anew
async function compareAgain() {
  for (const id of before.splice(0)) {
    try {
      compared.set(id, await withCurve(await get(path("jobs", id), QUIET)));
    } catch {
      continue; // it is gone, or cannot be had now
    }
    draw();
    redraw();
  }
}

/** A training and what it has told so far. */
async function withCurve(job, options = QUIET) {
  const curve = new Curve(job.name);
  curve.replace((await get(path("jobs", job.id, "metrics"), options)).data);
  return { job, curve };
}

/** The list, and the training of an id if one is given. */
export async function show(id) {
  asleep = false;
  if (!id) leave();
  const looked = id && (run?.job.id !== id || run.over) ? look(id) : null;
  await Promise.all([list(), looked]);
  await compareAgain();
}

/** Nothing is followed, or about to be, while another part of the page is shown. */
export function hide() {
  follower?.abort();
  [run, follower] = [null, null];
}

function leave() {
  hide();
  at("run").hidden = true;
}

let refreshing = false;
let asleep = false; // nobody is asked for a key until the person does something
let looks = 0;
async function refresh() {
  if (at("runs").hidden || document.hidden || refreshing || asleep) return;
  looks += 1;
  const live = shown.some((job) => LIVE.has(job.status)) || [...compared.values()].some(({ job }) => LIVE.has(job.status));
  if (!live && looks % SELDOM) return;
  refreshing = true;
  try {
    await list(QUIET);
    if (at("status").textContent === AWAY) say("The service is there again.");
    await countWorkers();
    for (const [id, other] of compared) {
      if (id !== run?.job.id && LIVE.has(other.job.status)) await renew(id, other);
    }
  } catch (error) {
    if (error instanceof NoKey) {
      asleep = true;
      say("The service asks for another key: what is shown here stands still until it has one.");
    }
    if (error instanceof Unreachable) say(AWAY);
    // All else is told by whatever the person does next: a message every two seconds would be in the way.
  } finally {
    refreshing = false;
  }
}

/** The curve of a training that is compared; one that was deleted is compared no more. */
async function renew(id, other) {
  try {
    other.job = shown.find((job) => job.id === id) ?? (await get(path("jobs", id), QUIET));
    other.curve.replace((await get(path("jobs", id, "metrics"), QUIET)).data);
  } catch (error) {
    if (!(error instanceof Refused && error.status === 404)) throw error;
    compared.delete(id);
  }
  redraw();
}

/** Who waits without end is told that nobody is there to train. */
async function countWorkers() {
  if (run?.job.status !== "queued") return;
  const ready = await get("readyz", QUIET);
  workers = ready.workers?.length ?? null;
  tellSoon();
}

/** As many as are shown, all anew: what was deleted meanwhile goes, what was queued comes. */
async function list(options) {
  const mine = (listings += 1);
  const found = [];
  let after = null;
  do {
    const size = Math.min(MOST_AT_ONCE, wanted - found.length);
    const page = await get(`jobs?limit=${size}${after ? `&after=${encodeURIComponent(after)}` : ""}`, options);
    found.push(...page.data);
    after = page.next;
  } while (after && found.length < wanted);
  if (mine !== listings) return; // a later look has begun
  shown = found;
  keepingFocus(at("runs"), () => {
    draw();
    at("runs-more").hidden = !after;
  });
}

async function more() {
  wanted += PAGE;
  await list();
}

/** Each training keeps its row, and a row what is in it: the focus, and a click that has begun, stay where they are. */
function draw() {
  const body = at("runs-list").tBodies[0];
  const there = new Set(shown.map((job) => job.id));
  for (const [id, row] of rows) {
    if (there.has(id)) continue;
    row.line.remove();
    rows.delete(id);
  }
  shown.forEach((job, n) => {
    if (!rows.has(job.id)) rows.set(job.id, new Row(job));
    const row = rows.get(job.id);
    row.tell(job);
    if (body.rows[n] !== row.line) body.insertBefore(row.line, body.rows[n] ?? null);
  });
  at("runs-list").hidden = !shown.length;
  at("runs-empty").hidden = shown.length > 0;
}

const network = (job) => `${job.model.cell} ${job.model.num_layers}×${job.model.hidden_size}`;

class Row {
  constructor(job) {
    this.tick = element("input", { type: "checkbox", "aria-label": `Compare ${job.name}` });
    this.tick.addEventListener("change", telling(() => compare(job, this.tick), { again: true }));
    this.status = element("span", { className: "badge" });
    this.best = element("td", { className: "number" });
    this.line = element(
      "tr",
      {},
      element("td", {}, this.tick),
      element("td", { className: "name" }, element("a", { href: `#runs/${job.id}` }, job.name)),
      element("td", {}, network(job)),
      element("td", {}, this.status),
      this.best,
      element("td", {}, moment(job.created_at)),
    );
  }

  tell(job) {
    const place = job.place ? ` (${job.place})` : "";
    const share = job.status === "running" ? ` ${Math.floor(100 * job.progress.fraction)} %` : place;
    this.status.className = `badge ${job.status}`;
    put(this.status, job.status + share);
    put(this.best, loss(job.best?.val_loss));
    if (run?.job.id === job.id) this.line.setAttribute("aria-current", "true");
    else this.line.removeAttribute("aria-current");
    if (!this.line.matches(":focus-within")) this.tick.checked = compared.has(job.id);
  }
}

/** Only where it is another text: a screen reader tells each change. */
function put(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

async function compare(job, tick) {
  if (!tick.checked) {
    compared.delete(job.id);
    return redraw();
  }
  const looked = run && !compared.has(run.job.id) && run.job.id !== job.id ? 1 : 0;
  if (compared.size + looked >= MOST_COMPARED) {
    tick.checked = false;
    throw new Mistake(`At most ${MOST_COMPARED} can be compared.`);
  }
  const now = shown.find((one) => one.id === job.id) ?? job;
  const told = await withCurve(now, {}).catch((error) => {
    tick.checked = false;
    throw error;
  });
  if (!tick.checked) return; // the person thought better of it
  compared.set(job.id, told);
  if (!run && !follower) await goTo(`#runs/${job.id}`);
  redraw();
}

function redraw() {
  if (!run) return;
  const others = [...compared.values()].filter((one) => one.job.id !== run.job.id);
  run.curve.label = run.job.name;
  const all = [run, ...others];
  for (const one of all) {
    const twins = all.filter((other) => other.job.name === one.job.name);
    one.curve.label = twins.length > 1 ? `${one.job.name} (${moment(one.job.created_at)}, ${one.job.id.slice(4, 8)})` : one.job.name;
  }
  chart.show(all.map((one) => one.curve));
  const table = at("run-compared");
  table.hidden = !others.length;
  if (others.length) {
    table.replaceChildren(
      element(
        "table",
        {},
        element("caption", {}, "Side by side"),
        element("thead", {}, element("tr", {}, ...["Name", "Network", "Steps", "Last training loss", "Best validation loss", "At step"].map((text) => element("th", { scope: "col" }, text)))),
        element(
          "tbody",
          {},
          ...all.map(({ job, curve }) =>
            element(
              "tr",
              {},
              element("td", { className: "name" }, curve.label),
              element("td", {}, network(job)),
              element("td", { className: "number" }, count(Math.max(0, ...curve.train.keys()))),
              element("td", { className: "number" }, loss(curve.last)),
              element("td", { className: "number" }, loss(curve.best?.value)),
              element("td", { className: "number" }, count(curve.best?.step)),
            ),
          ),
        ),
      ),
    );
  }
}

/** Show a training and follow it to its end. */
async function look(id) {
  leave();
  const mine = (follower = new AbortController());
  const { signal } = mine;
  try {
    const one = await withCurve(await get(path("jobs", id), { signal }), { signal });
    if (signal.aborted) return;
    run = one;
    workers = null;
    at("run-samples").replaceChildren();
    at("run").hidden = false;
    tell();
    draw();
    redraw();
    follow(one, signal)
      .catch(complain)
      .finally(() => {
        one.over = true;
      });
  } finally {
    if (follower === mine && !run) follower = null;
  }
}

/** Live events to the end of the job; a connection that breaks off is taken up again where it was. */
async function follow(mine, signal) {
  const quietly = { signal, quiet: true };
  let seen = null;
  let attempt = 0;
  let lost = false;
  for (;;) {
    let pause = AGAIN;
    try {
      const headers = { Accept: "text/event-stream", ...(seen ? { "Last-Event-ID": seen } : {}) };
      const answer = await call("GET", path("jobs", mine.job.id, "events"), { headers, ...quietly });
      if (lost) say("The service is there again.");
      lost = false;
      for await (const { event, id, data } of eventsOf(answer)) {
        seen = id ?? seen;
        const anew = event === "status" && data.attempt !== attempt && data.attempt > 1;
        if (event === "status") ({ attempt } = data);
        // A later attempt, and a setback, go on from before what had been told.
        if (anew || event === "setback") mine.curve.replace((await get(path("jobs", mine.job.id, "metrics"), quietly)).data);
        take(mine, event, data);
      }
      mine.job = await get(path("jobs", mine.job.id), quietly);
      if (run !== mine) return;
      tell();
      redraw();
      await list(quietly);
      if (!LIVE.has(mine.job.status) && mine.job.status !== "paused") return;
    } catch (error) {
      const later = error instanceof Refused && LATER.has(error.status);
      if (signal.aborted || !(later || error instanceof Unreachable)) throw error;
      lost = true;
      say(AWAY);
      if (later) pause = Math.max(AGAIN, 1000 * error.retryAfter);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal.aborted) return;
  }
}

function take(mine, event, data) {
  if (run !== mine) return;
  const { progress } = mine.job;
  if (event === "progress") {
    mine.curve.take(data.step, data.train_loss, null);
    Object.assign(progress, data, { eta_seconds: data.eta_seconds ?? progress.eta_seconds });
  } else if (event === "evaluation") {
    mine.curve.take(data.step, null, data.val_loss);
    progress.val_loss = data.val_loss;
    if (data.best) mine.job.best = { step: data.step, val_loss: data.val_loss };
  } else if (event === "sample") {
    const samples = at("run-samples");
    samples.prepend(element("article", {}, element("small", {}, `Step ${count(data.step)}`), element("pre", {}, data.text)));
    while (samples.children.length > MOST_SAMPLES) samples.lastChild.remove();
  } else if (event === "checkpoint") {
    mine.job.model_id = data.model;
  } else if (event === "status") {
    // A new status is the answer to whatever was asked, here or elsewhere.
    Object.assign(mine.job, { status: data.status, attempt: data.attempt, place: null, worker: null, cancel_requested: false, pause_requested: false });
    lookAgain(mine);
    if (data.error) mine.job.error = data.error;
  }
  tellSoon();
}

let looking = null;
/** For what no event tells: the worker, the place in the queue. Once, however many events come at the same time. */
function lookAgain(mine) {
  clearTimeout(looking);
  looking = setTimeout(async () => {
    const job = await get(path("jobs", mine.job.id), QUIET).catch(() => null);
    if (!job || run !== mine || job.status !== mine.job.status) return;
    const { attempt, place, worker, cancel_requested, pause_requested } = job;
    Object.assign(mine.job, { attempt, place, worker, cancel_requested, pause_requested });
    tellSoon();
  }, SOON);
}

let toldSoon = false;
function tellSoon() {
  if (toldSoon) return;
  toldSoon = true;
  requestAnimationFrame(() => {
    toldSoon = false;
    if (!run) return;
    tell();
    redraw();
  });
}

function tell() {
  const { job } = run;
  const { progress } = job;
  at("run-name").textContent = job.name;
  const asked = job.status === "running" && (job.cancel_requested || job.pause_requested);
  const wish = job.cancel_requested ? ", being cancelled" : ", being paused";
  at("run-status").textContent = job.status + (asked ? wish : job.place ? `, place ${job.place}` : "");
  at("run-status").className = `badge ${job.status}`;
  at("run-samples").toggleAttribute("data-over", !LIVE.has(job.status));
  at("run-error").hidden = !job.error;
  at("run-error").textContent = job.error ? `${job.error.code}: ${job.error.detail}` : "";
  at("run-progress").value = job.status === "succeeded" ? 1 : progress.fraction ?? 0;
  at("run-note").hidden = job.status !== "queued" || workers !== 0;
  keepingFocus(at("run"), () => {
    at("run-pause").hidden = !LIVE.has(job.status);
    at("run-resume").hidden = job.status !== "paused";
    at("run-cancel").hidden = !LIVE.has(job.status) && job.status !== "paused";
    at("run-delete").hidden = job.status === "running";
    for (const id of ["run-write", "run-download", "run-download-onnx"]) at(id).hidden = !job.model_id;
  });
  const perCharacter = progress.val_loss ?? progress.train_loss;
  define(at("run-numbers"), [
    ["Step", progress.steps ? `${count(progress.step)} of ${count(progress.steps)}` : count(progress.step)],
    ["Training loss", loss(progress.train_loss)],
    ["Validation loss", loss(progress.val_loss)],
    ["Bits per character", perCharacter === null || perCharacter === undefined ? "–" : (perCharacter / Math.LN2).toFixed(3)],
    ["Best", job.best ? `${loss(job.best.val_loss)} at step ${count(job.best.step)}` : "–"],
    ["Characters a second", count(progress.characters_per_second)],
    ["Left", LIVE.has(job.status) ? duration(progress.eta_seconds) : "–"],
    ["Memory", bytes(progress.memory_bytes)],
    ["Network", network(job)],
    ["Text", job.corpus_name],
    ["Attempt", count(job.attempt)],
    ["Worker", job.worker ?? "–"],
  ]);
  const chosen = { ...job.model, ...job.training };
  define(at("run-settings"), Object.entries(chosen).map(([name, value]) => [name.replaceAll("_", " "), value ?? "–"]));
}

async function change(act) {
  const mine = run;
  mine.job = { ...(await ask(path("jobs", mine.job.id, act))), progress: mine.job.progress };
  say({ pause: "It pauses after the step under way.", resume: "It is queued again.", cancel: "It is cancelled." }[act]);
  if (run === mine) tell();
  await list();
}

/** The model's best checkpoint as a file. By a link the key could not be shown. */
async function download(format) {
  const { model_id } = run.job;
  const name = `${run.job.name}.${format}`;
  const file = await (await call("GET", `${path("models", model_id, "download")}?format=${format}`)).blob();
  const href = URL.createObjectURL(file);
  element("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
  say(`${name}, ${bytes(file.size)}.`);
}

async function drop() {
  const mine = run;
  const { job } = mine;
  if (!confirm(`Delete the training ${job.name} and its history? Its model stays.`)) return;
  await remove(path("jobs", job.id)).catch((error) => {
    if (error.status !== 404) throw error; // somebody else was faster
  });
  compared.delete(job.id);
  if (run === mine) {
    await goTo("#runs");
    at("content").focus({ preventScroll: true });
  }
  say(`${job.name} is deleted.`);
}
