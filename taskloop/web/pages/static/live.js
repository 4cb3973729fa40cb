/* Keeps a page up to date. The server says that something changed; htmx asks for the content again; what differs is changed
   in place, so nothing flickers, and focus, what is typed and what was opened stay. Without this script a page is whole too. */
(() => {
  "use strict";
  const page = document.body, signal = document.getElementById("signal");
  const bound = (name) => 1000 * page.dataset[name];
  const GATHER = 250, GRACE = 5000;

  // -- the clock of the server, and what counts by it

  let ahead = 0; // milliseconds
  function setClock() {
    const at = document.getElementById("as-of");
    if (at) ahead = Date.parse(at.dateTime) - Date.now();
  }
  function span(seconds) { // as the server writes it
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return seconds < 10 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds)} s`;
    const whole = Math.round(seconds);
    const [name, length, less, step] =
      whole >= 86400 ? ["d", 86400, "h", 3600] : whole >= 3600 ? ["h", 3600, "m", 60] : ["m", 60, "s", 1];
    return `${Math.floor(whole / length)}${name} ${Math.floor((whole % length) / step)}${less}`;
  }
  function count() {
    const now = Date.now() + ahead;
    for (const one of document.querySelectorAll("time[data-far]")) {
      const seconds = (Date.parse(one.dateTime) - now) / 1000;
      write(one, seconds >= 0.5 ? `in ${span(seconds)}` : seconds > -0.5 ? "now" : `${span(-seconds)} ago`);
    }
    for (const one of document.querySelectorAll("[data-since]")) {
      write(one, span(Math.max(0, (now - Date.parse(one.dataset.since)) / 1000)));
    }
  }
  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  // -- the new content over the old: only what differs is touched

  const FIELDS = new Set(["INPUT", "SELECT", "TEXTAREA"]);
  let held = 0, showing = false; // rows that wait to be shown; whether they are wanted now

  function idOf(node) { // of a form node.id is its field of that name
    return node.getAttribute?.("id");
  }
  function isOwn(node) {
    return node.dataset?.own === "";
  }
  function sort(node) { // a form is another one if it does something else, a section if another heading names it
    return [node.nodeName, ...["action", "name", "aria-labelledby"].map((name) => node.getAttribute?.(name))].join();
  }
  function alike(one, other) {
    return !idOf(one) && !idOf(other) && sort(one) === sort(other);
  }
  function firstAlike(at, next, ids) { // what lies before it is gone
    if (next.nodeType === Node.ELEMENT_NODE) while (at && !ids.has(idOf(at)) && !alike(at, next)) at = at.nextSibling;
    return at && alike(at, next) ? at : null;
  }
  function isTyped(node) {
    return FIELDS.has(node.nodeName) && node.type !== "hidden";
  }
  function overNode(old, fresh) {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
    } else if (!isTyped(old) && !isOwn(old) && !old.isEqualNode(fresh)) {
      for (const { name } of [...old.attributes]) {
        if (!fresh.hasAttribute(name) && name !== "open") old.removeAttribute(name);
      }
      for (const { name, value } of [...fresh.attributes]) {
        if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
      }
      overChildren(old, fresh);
    }
  }
  function overChildren(old, fresh) {
    const holds = !showing && "hold" in (old.dataset ?? {}); // its rows change, but none comes or goes unasked
    const byId = new Map([...old.children].map((one) => [idOf(one), one]));
    const ids = new Set([...fresh.children].map(idOf).filter(Boolean));
    let at = old.firstChild;
    for (const next of [...fresh.childNodes]) {
      while (at && isOwn(at) && idOf(at) && !ids.has(idOf(at))) at = at.nextSibling; // it stays where it is
      const id = idOf(next), found = id ? byId.get(id) : firstAlike(at, next, ids);
      if (found) {
        while (!holds && at !== found && !ids.has(idOf(at))) at = gone(at); // first: what is moved loses the focus
        if (found === at) at = at.nextSibling;
        else if (!holds) old.insertBefore(found, at);
        if (found.nodeName === next.nodeName) overNode(found, next);
        else found.replaceWith(next);
      } else if (holds && id) {
        held += 1;
      } else if (!holds) {
        old.insertBefore(next, at);
      }
    }
    if (!holds) while (at) at = gone(at);
    else for (const one of old.children) one.classList.toggle("left", !ids.has(idOf(one))); // nothing is known of it any more
  }
  function gone(node) {
    const after = node.nextSibling;
    if (!isOwn(node)) node.remove();
    return after;
  }
  function atItsEnd(box) {
    return box.scrollTop + box.clientHeight >= box.scrollHeight - 24;
  }
  function toItsEnd(box) {
    box.scrollTop = box.scrollHeight;
  }
  function over(target, fragment) {
    const following = [...document.querySelectorAll("[data-follow]")].filter(atItsEnd);
    held = 0;
    overChildren(target, fragment);
    if (showing) step(0); // the button goes, and the focus would with it
    showing = false;
    following.forEach(toItsEnd);
    const news = document.getElementById("news");
    if (news) {
      news.hidden = !held;
      write(news.firstElementChild, `${held} new – show`);
    }
    setClock();
    count();
    document.dispatchEvent(new Event("taskloop:shown"));
  }

  // -- when it is time to ask

  let asked = Date.now() - bound("rarely"), heard = Date.now(), seen = 0; // asked for content; was answered; came to the front
  let timer = null, waiting = 0, frozen = false, refused = 0; // refused: with which status
  const source = new EventTarget(); // what htmx takes for the stream: it may be another tab's

  function ask() {
    clearTimeout(timer);
    timer = null;
    waiting = 0;
    asked = Date.now();
    source.dispatchEvent(new MessageEvent("changed"));
  }
  function soon() {
    waiting += 1;
    if (frozen) tell();
    else if (!document.hidden && timer === null) {
      timer = setTimeout(ask, Math.max(GATHER, asked + bound("rarely") - Date.now()));
    }
  }
  function hear(text) {
    const about = JSON.parse(text), { job, run } = page.dataset;
    if (about && run && !about.runs.includes(Number(run))) return;
    if (about && job && !about.jobs.includes(job)) return;
    soon();
  }

  // -- one stream for all tabs of a browser: one of them holds it, and tells the others

  const name = `taskloop ${page.dataset.base}`;
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(name) : null;
  let stream = null, wanting = null, letGo = null, leaving = null, broken = false;

  function open() {
    stream = new EventSource(page.getAttribute("sse-connect"));
    stream.addEventListener("changed", ({ data }) => {
      hear(data);
      channel?.postMessage(data);
    });
    stream.onopen = () => {
      broken = false;
      soon(); // what happened meanwhile nobody told
    };
    stream.onerror = () => { broken = true; };
  }
  function answered() {
    heard = Date.now();
    if (stream?.readyState === EventSource.CLOSED) open(); // it was refused, and a browser does not try that again
  }
  function listen() {
    clearTimeout(leaving);
    if (wanting) return;
    const mine = wanting = new AbortController();
    if (!navigator.locks || !channel) return open(); // no secure context: each visible tab has its own
    navigator.locks.request(name, { signal: mine.signal }, () => {
      open();
      return new Promise((done) => { letGo = done; });
    }).catch(() => {}); // it was given up before it was had
  }
  function leave() {
    wanting?.abort();
    wanting = null;
    stream?.close();
    stream = null;
    letGo?.();
    letGo = null;
  }
  function turned() {
    if (document.hidden) {
      clearTimeout(timer);
      timer = null;
      leaving = setTimeout(leave, letGo ? bound("hidden") : 0); // streams that are not shared take all connections
    } else {
      seen = Date.now();
      listen();
      if (!frozen) ask();
    }
  }

  // -- how fresh it is, in words

  function tell() {
    const silent = Date.now() - heard;
    const lost = !frozen && silent >= bound("quiet") && Date.now() - seen >= GRACE;
    const stale = lost && silent >= bound("stale");
    const bar = document.getElementById("lost"), [what, since] = bar.children; // what is read aloud does not count
    const from = `what is shown is from ${document.getElementById("as-of")?.textContent}`;
    if (refused === 401 || refused === 403) write(what, "You may not see this any more: load the page again to sign in.");
    else if (refused) write(what, `${refused === 404 ? "It is gone" : "The server cannot say how things stand"} (${refused}): ${from}.`);
    else if (lost) write(what, `No signal: ${from}.`);
    write(since, lost ? `For ${span(Math.floor(silent / 1000))} now.` : "");
    bar.hidden = !lost && !refused;
    const returning = stream?.readyState === EventSource.CONNECTING && broken;
    write(signal, frozen ? `held, ${waiting} changes wait` : lost || refused ? "no signal" : returning ? "reconnecting" : "live");
    signal.className = frozen || lost || refused ? "quiet" : "well";
    if (page.classList.toggle("stale", stale) || stale !== tell.stale) {
      for (const one of document.querySelectorAll("form[method=post] button")) one.disabled = stale;
    }
    tell.stale = stale;
  }
  function tick() {
    if (document.hidden) return;
    count();
    if (!frozen && Date.now() - asked >= bound("poll") / haste()) ask();
    tell();
  }
  function haste() { // the stream tells only of what happens in its own process, and not of lines of a log
    if (document.querySelector("[data-grows]")) return 8;
    if (document.querySelector("[data-since]")) return 3;
    return stream && stream.readyState !== EventSource.OPEN ? 2 : 1;
  }
  function hold() {
    frozen = !frozen;
    if (!frozen) ask();
    tell();
  }

  // -- keys

  const keys = document.getElementById("keys"), keysOn = document.getElementById("keys-on");
  let going = 0;

  function step(by) {
    const links = [...document.querySelectorAll("main tbody tr")].map((row) => row.querySelector("a")).filter(Boolean);
    const here = links.findIndex((link) => link.closest("tr").contains(document.activeElement));
    links[Math.min(links.length - 1, Math.max(0, here + by))]?.focus();
  }
  function pressed(event) {
    const { key, target } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || keys.open || !keysOn.checked) return;
    if (FIELDS.has(target.nodeName) || target.isContentEditable) return;
    const to = Date.now() - going < 1500 ? document.querySelector(`nav a[data-key="${CSS.escape(key)}"]`) : null;
    going = key === "g" ? Date.now() : 0;
    if (to) to.click();
    else if (key === "?") keys.showModal();
    else if (key === "/") document.querySelector(".filter input")?.focus();
    else if (key === "j" || key === "k") step(key === "j" ? 1 : -1);
    else if (key === "." && signal) hold();
    else return;
    event.preventDefault();
  }

  // -- begin

  try {
    keysOn.checked = localStorage.getItem("taskloop keys") !== "off";
    keysOn.addEventListener("change", () => localStorage.setItem("taskloop keys", keysOn.checked ? "on" : "off"));
  } catch {} // a browser that keeps nothing
  const button = document.getElementById("keys-button");
  button.hidden = false;
  button.addEventListener("click", () => keys.showModal());
  document.addEventListener("keydown", pressed);
  window.taskloop = { span };
  setClock();
  document.querySelectorAll("[data-follow]").forEach(toItsEnd);
  for (const now of document.querySelectorAll(".now")) now.closest(".wide").scrollLeft += now.getBoundingClientRect().x - 200;
  setInterval(signal ? tick : count, 1000);
  if (!signal) return; // a page that answers a form stays as it is

  source.close = () => {};
  htmx.createEventSource = () => source;
  htmx.defineExtension("morph", {
    isInlineSwap: () => false,
    handleSwap: (style, target, fragment) => {
      if (style !== "morph") return false;
      if (!frozen || showing) over(target, fragment); // it was held meanwhile
      return true;
    },
  });
  signal.hidden = false;
  signal.addEventListener("htmx:configRequest", ({ detail }) => {
    detail.headers["Cache-Control"] = "no-cache"; // else tabs that ask for the same wait for each other's entry in the cache
  });
  signal.addEventListener("htmx:afterRequest", ({ detail }) => {
    refused = detail.xhr.status >= 400 ? detail.xhr.status : 0;
    if (detail.successful) answered();
    tell();
  });
  document.addEventListener("click", ({ target }) => {
    if (!target.closest?.("#news")) return;
    showing = true;
    ask();
  });
  channel?.addEventListener("message", ({ data }) => hear(data));
  document.addEventListener("visibilitychange", turned);
  addEventListener("pagehide", leave);
  addEventListener("pageshow", ({ persisted }) => persisted && turned());
  if (document.hidden) asked = 0;
  else {
    listen();
    soon(); // as when the stream opens, which another tab may have
  }
  tell();
})();
