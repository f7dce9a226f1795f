"use strict";

// Without this script the page shows everything; with it, shots can be ordered, picked, and found on the timeline.

const list = document.getElementById("list");
const shots = [...list.children].map((element) => ({
  element,
  number: Number(element.id.slice("shot-".length)),
  start: Number(element.dataset.start),
  end: Number(element.dataset.end),
  sound: element.dataset.sound,
  scores: JSON.parse(element.dataset.scores),
  caption: (element.querySelector(".caption")?.textContent ?? "").toLowerCase(),
}));
const filmEnd = Number(list.dataset.seconds);

// --- order and pick

const controls = document.getElementById("controls");

function valueOf(shot, order) {
  if (order === "start") return -shot.start; // the first one first
  if (order === "duration") return shot.end - shot.start;
  return shot.scores[order] ?? null;
}

// What has no value stands last, whichever way round.
function compare(a, b, order, sign) {
  const one = valueOf(a, order);
  const other = valueOf(b, order);
  if (one === null || other === null) return (one === null) - (other === null);
  return sign * (one - other) || a.start - b.start;
}

function isWanted(shot, wanted) {
  const words = wanted.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const least = Number(wanted.least.value);
  return (
    words.every((word) => shot.caption.includes(word)) &&
    (!wanted.sound.value || shot.sound === wanted.sound.value) &&
    (least === 0 || (shot.scores[wanted.attribute.value] ?? -1) >= least) &&
    (wanted.until.value === "100" || shot.end <= (filmEnd * wanted.until.value) / 100)
  );
}

function update() {
  const wanted = controls.elements;
  const sign = wanted.reversed.checked ? 1 : -1;
  const order = wanted.order.value;
  const ordered = [...shots].sort((a, b) => compare(a, b, order, sign));
  list.append(...ordered.map((shot) => shot.element));
  let count = 0;
  for (const shot of shots) {
    const shown = isWanted(shot, wanted);
    shot.element.hidden = !shown;
    count += shown;
  }
  wanted.least.nextElementSibling.textContent = Number(wanted.least.value).toFixed(2);
  wanted.until.nextElementSibling.textContent = `${wanted.until.value} %`;
  controls.querySelector(".count").textContent = `${count} of ${shots.length} shots`;
}

controls.hidden = false;
controls.addEventListener("input", update);
controls.addEventListener("reset", () => setTimeout(update)); // the values change after the event
controls.addEventListener("submit", (event) => event.preventDefault());
update();

// --- the timeline

const place = document.querySelector(".place");
const here = document.getElementById("here");
const nows = [...document.querySelectorAll(".row .now")];
let current = null;

function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

function point(shot) {
  current = shot;
  const caption = shot.element.querySelector(".caption, .failure")?.textContent ?? "";
  place.classList.add("on");
  place.firstElementChild.style.left = `${(50 * (shot.start + shot.end)) / filmEnd}%`;
  place.setAttribute("aria-valuenow", shot.number);
  place.setAttribute("aria-valuetext", `Shot ${shot.number} at ${clock(shot.start)}: ${caption}`);
  nows.forEach((now, row) => (now.textContent = shot.scores[row]?.toFixed(2) ?? ""));
  const picture = shot.element.querySelector(".picture")?.cloneNode();
  const said = document.createElement("span");
  const title = document.createElement("b");
  title.textContent = `Shot ${shot.number}, ${clock(shot.start)}`;
  said.append(title, caption);
  here.replaceChildren(...[picture, said].filter(Boolean));
}

function shotAt(event) {
  const box = place.getBoundingClientRect();
  const seconds = (filmEnd * (event.clientX - box.left)) / box.width;
  return shots.findLast((shot) => shot.start <= seconds) ?? shots[0];
}

function goTo(shot) {
  if (shot.element.hidden) controls.reset();
  setTimeout(() => {
    document.querySelector(".found")?.classList.remove("found");
    shot.element.classList.add("found");
    shot.element.scrollIntoView({ block: "center" });
    shot.element.focus({ preventScroll: true });
  });
}

const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -Infinity, End: Infinity };

if (shots.length) {
  place.addEventListener("pointermove", (event) => point(shotAt(event)));
  place.addEventListener("click", (event) => goTo(shotAt(event)));
  place.addEventListener("focus", () => current ?? point(shots[0]));
  place.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && current) goTo(current);
    if (!(event.key in STEPS)) return;
    event.preventDefault();
    const next = shots.indexOf(current) + STEPS[event.key];
    point(shots[Math.min(shots.length - 1, Math.max(0, next))]);
  });
  // A link to a shot that is not shown would lead nowhere.
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.('a[href^="#shot-"]');
    if (!link) return;
    event.preventDefault();
    goTo(shots.find((shot) => `#${shot.element.id}` === link.hash));
  });
}
