// Everything works without this: it adds copying, keys, a page that renews itself, and events as they happen.
"use strict";

document.documentElement.classList.add("keyed");

// -- copying --
function offerCopies(root) {
  if (!navigator.clipboard) return; // only over TLS or on this host
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
}
offerCopies(document);
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const said = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not copied";
  }
  setTimeout(() => { button.textContent = said; }, 1500);
});

// -- keys --
const typing = (target) => target.closest("input, select, textarea, [contenteditable]") !== null;
let leader = 0; // when g was pressed
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
  const dialog = document.getElementById("keys");
  if (!dialog || dialog.open) return;
  if (event.key === "/") {
    const menu = document.getElementById("menu");
    if (menu) menu.checked = true;
    document.querySelector("[data-key='/']").focus();
  } else if (event.key === "?") {
    dialog.showModal();
  } else if (event.key === "g") {
    leader = Date.now();
    return;
  } else if (Date.now() - leader < 1500) {
    const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
    leader = 0;
    if (!link) return;
    link.click();
  } else {
    return;
  }
  event.preventDefault();
});

// -- a page that renews itself, while it is looked at and nobody is in the middle of something in it --
const main = document.querySelector("main[data-refresh]");
if (main) {
  const every = Number(main.dataset.refresh) * 1000;
  let failures = 0;
  const busy = () => document.hidden || main.contains(document.activeElement) && document.activeElement !== main
    || main.querySelector("details[open]") !== null || !document.getSelection().isCollapsed;
  const renew = async () => {
    if (!busy()) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "error" });
        if (answer.ok) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          main.replaceChildren(...page.querySelector("main").childNodes);
          offerCopies(main);
          failures = 0;
          const told = main.querySelector("[data-refreshed]");
          if (told) told.textContent = `As of ${new Date().toISOString().slice(11, 19)} UTC`;
        }
      } catch {
        failures += 1; // signed out, or the relay is away: ask less and less often
      }
    }
    setTimeout(renew, every * Math.min(2 ** failures, 32));
  };
  setTimeout(renew, every);
}

// -- events as they happen --
const live = document.querySelector("[data-events]");
if (live && window.EventSource) {
  const shown = 200;
  const template = document.getElementById("event-row");
  const state = document.querySelector("[data-live]");
  const source = new EventSource(live.dataset.events);
  let stopped = false;
  const tell = (text) => { if (state) state.textContent = text; };
  source.onopen = () => tell("Live");
  source.onerror = () => tell(source.readyState === EventSource.CLOSED ? "Not connected: reload the page" : "Connecting…");
  source.onmessage = (message) => {
    const event = JSON.parse(message.data);
    const row = template.content.firstElementChild.cloneNode(true);
    for (const place of row.querySelectorAll("[data-field]")) {
      const value = event[place.dataset.field];
      if (place.dataset.field === "at") {
        place.dateTime = event.iso;
        place.title = event.iso;
      }
      if (place.localName === "a") {
        if (event.href) place.href = event.href; else place.removeAttribute("href");
      }
      if (place.dataset.field === "name") place.classList.add(event.tone);
      place.textContent = value;
    }
    const empty = document.querySelector("[data-empty]");
    if (empty) empty.remove();
    live.closest("[hidden]")?.removeAttribute("hidden");
    live.prepend(row);
    while (live.children.length > shown) live.lastElementChild.remove();
  };
  const button = document.querySelector("[data-pause]");
  if (button) {
    button.hidden = false;
    button.addEventListener("click", () => {
      if (stopped) { location.reload(); return; }
      stopped = true;
      source.close();
      tell("Stopped");
      button.textContent = "Go on";
    });
  }
}
