// What the page does beyond links and forms: it follows new rows, tells times in local time, and reads the chart.
"use strict";

const EVERY_MS = 2000;
const LONGEST_MS = 10000;
const byId = (id) => document.getElementById(id);

/* Times: every element with data-ms shows UTC as the server wrote it, or the same part of the local time. */

let zone = "utc";
try { zone = localStorage.getItem("zone") === "local" ? "local" : "utc"; } catch { /* no storage: UTC */ }

const offsetMs = (ms) => (zone === "local" ? -new Date(ms).getTimezoneOffset() * 60000 : 0);

function timeText(ms, cut) {
  const [start, end] = cut.split(",").map(Number);
  return new Date(ms + offsetMs(ms)).toISOString().replace("T", " ").slice(start, end);
}

function zoneName() {
  if (zone === "utc") return "UTC";
  const minutes = Math.abs(offsetMs(Date.now()) / 60000);
  const two = (number) => String(Math.floor(number)).padStart(2, "0");
  return `UTC${offsetMs(Date.now()) < 0 ? "−" : "+"}${two(minutes / 60)}:${two(minutes % 60)}`;
}

function tellTimes(root) {
  for (const one of root.querySelectorAll("[data-ms]")) one.textContent = timeText(Number(one.dataset.ms), one.dataset.cut);
  for (const one of root.querySelectorAll("[data-zone-name]")) one.textContent = zoneName();
  for (const one of root.querySelectorAll("[data-zone]")) one.setAttribute("aria-pressed", String(one.dataset.zone === zone));
}

/* The chart's read-out: the pointer or the arrow keys choose a point. */

let chosenMs = null; // null: none is

function showPoint() {
  const plot = byId("plot");
  if (!plot) return;
  const points = JSON.parse(plot.dataset.points);
  const point = chosenMs === null ? points.at(-1) : points.reduce((best, one) => (Math.abs(one[0] - chosenMs) < Math.abs(best[0] - chosenMs) ? one : best));
  const [ms, value, x, y] = point;
  const [line, dot] = byId("cross").children;
  line.setAttribute("x1", `${x}%`);
  line.setAttribute("x2", `${x}%`);
  dot.setAttribute("cx", `${x}%`);
  dot.setAttribute("cy", y);
  byId("cross").setAttribute("visibility", chosenMs === null ? "hidden" : "visible");
  byId("value").textContent = value;
  const time = byId("at").firstElementChild;
  time.dataset.ms = ms;
  time.textContent = timeText(ms, time.dataset.cut);
}

function choose(ms) {
  chosenMs = ms;
  showPoint();
}

document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest?.("#plot");
  if (!plot) {
    if (chosenMs !== null && document.activeElement?.id !== "plot") choose(null);
    return;
  }
  const box = plot.getBoundingClientRect();
  const at = (100 * (event.clientX - box.left)) / box.width;
  const points = JSON.parse(plot.dataset.points);
  choose(points.reduce((best, one) => (Math.abs(one[2] - at) < Math.abs(best[2] - at) ? one : best))[0]);
});

document.addEventListener("keydown", (event) => {
  if (event.target.id !== "plot") return;
  const points = JSON.parse(event.target.dataset.points);
  const found = chosenMs === null ? points.length - 1 : points.findIndex((one) => one[0] >= chosenMs);
  const last = points.length - 1;
  const to = { ArrowLeft: found - 1, ArrowRight: found + 1, Home: 0, End: last }[event.key];
  if (event.key === "Escape") choose(null);
  if (to === undefined) return;
  event.preventDefault();
  choose(points[Math.min(last, Math.max(0, to))][0]);
});

document.addEventListener("focusout", (event) => {
  if (event.target.id === "plot") choose(null);
});

/* New rows: the changing part is asked for again and again, and what differs is put in place. */

let following = Boolean(byId("live")?.dataset.source) && byId("state").classList.contains("on");
let timer = 0;
let waitMs = EVERY_MS;

function held(element) {
  const selection = getSelection();
  const selecting = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
  const focused = document.activeElement;
  return selecting || (element !== focused && element.contains(focused) && !focused.id);
}

function swap(element, fresh) {
  if (element.innerHTML === fresh.innerHTML || held(element)) return;
  const focused = element.contains(document.activeElement) ? document.activeElement.id : "";
  const known = new Set([...element.querySelectorAll("[data-id]")].map((row) => row.dataset.id));
  for (const row of fresh.querySelectorAll("[data-id]")) row.classList.toggle("new", known.size > 0 && !known.has(row.dataset.id));
  element.replaceChildren(...fresh.childNodes);
  if (focused) byId(focused)?.focus({ preventScroll: true });
}

function take(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("live");
  tellTimes(fresh);
  const live = byId("live");
  if (fresh.dataset.shape !== live.dataset.shape) live.replaceWith(fresh);
  else for (const element of live.querySelectorAll("[data-swap]")) swap(element, fresh.querySelector(`#${element.id}`));
  showPoint();
}

function say(state, text, alert = "") {
  if (byId("state").textContent !== text) byId("state").textContent = text;
  byId("state").className = `state ${state}`;
  if (byId("alert").textContent !== alert) byId("alert").textContent = alert;
  byId("alert").hidden = !alert;
}

async function follow() {
  try {
    const response = await fetch(byId("live").dataset.source, { cache: "no-cache", signal: AbortSignal.timeout(15000) });
    if (!response.ok) throw new Error((await response.json()).detail);
    const html = await response.text();
    if (!following) return;
    take(html);
    say("on", "Live");
    waitMs = EVERY_MS;
  } catch (error) {
    if (!following) return;
    const reason = error instanceof TypeError || error.name === "TimeoutError" ? "the dashboard does not answer" : error.message;
    say("off", "Waiting", `These rows are not up to date: ${reason}. Trying again.`);
    waitMs = Math.min(LONGEST_MS, waitMs * 1.5);
  }
  next();
}

function next(soon = false) {
  clearTimeout(timer);
  if (following && !document.hidden) timer = setTimeout(follow, soon ? 0 : waitMs);
}

byId("pause")?.addEventListener("click", () => {
  following = !following;
  const button = byId("pause");
  button.textContent = following ? "Pause" : "Resume";
  history.replaceState(null, "", following ? button.dataset.on : button.dataset.off);
  say(following ? "on" : "", following ? "Live" : "Paused");
  next(true);
});

byId("zone")?.addEventListener("click", (event) => {
  zone = event.target.dataset.zone ?? zone;
  try { localStorage.setItem("zone", zone); } catch { /* forgotten with the page, then */ }
  tellTimes(document);
});

document.addEventListener("visibilitychange", () => next(true));
for (const id of ["pause", "zone"]) byId(id)?.removeAttribute("hidden");
tellTimes(document);
next();
