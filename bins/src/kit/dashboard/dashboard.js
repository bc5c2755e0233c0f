// Asks for the page again and changes what differs, so that scroll positions, focus, selected text and what is unfolded
// stay. The page is made by the server alone.
"use strict";
(() => {
  const EVERY = 1000, PATIENCE = 5000;
  const link = document.getElementById("link");
  let timer, asking = false, since = null;

  const change = (old, now) => {
    if (old.nodeType !== now.nodeType || old.nodeName !== now.nodeName || old.id !== now.id) {
      old.replaceWith(now);
      return;
    }
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== now.data) old.data = now.data;
      return;
    }
    const kept = (name) => name === "open";
    for (const { name } of [...old.attributes]) {
      if (!now.hasAttribute(name) && !kept(name)) old.removeAttribute(name);
    }
    for (const { name, value } of now.attributes) {
      if (old.getAttribute(name) !== value && !kept(name)) old.setAttribute(name, value);
    }
    let at = old.firstChild;
    const after = (node) => (at = node.nextSibling, node);
    for (const node of [...now.childNodes]) {
      // What has an id stays itself when something comes or goes before it.
      const same = node.id && old.children.namedItem(node.id);
      while (same && at !== same) after(at).remove();
      if (!at || (!same && at.id && now.children.namedItem(at.id))) old.insertBefore(node, at);
      else change(after(at), node);
    }
    while (at) after(at).remove();
  };

  const show = (text) => {
    const page = new DOMParser().parseFromString(text, "text/html");
    if (page.documentElement.dataset.build !== document.documentElement.dataset.build) {
      location.reload();
      return;
    }
    // What changed places is put in anew, and gets back the focus and where it was scrolled to.
    const focus = document.activeElement?.id;
    const were = [...document.querySelectorAll(".box")].map((it) => [it.id, it.scrollLeft]);
    document.title = page.title;
    change(document.getElementById("main"), page.getElementById("main"));
    for (const [id, left] of were) {
      const it = document.getElementById(id);
      if (it && it.scrollLeft !== left) it.scrollLeft = left;
    }
    if (focus && document.activeElement?.id !== focus) {
      document.getElementById(focus)?.focus({ preventScroll: true });
    }
  };

  const say = (text) => {
    if (link.textContent !== text) link.textContent = text;
    document.body.classList.toggle("lost", since !== null);
  };

  const ask = async () => {
    if (asking || document.hidden) return;
    asking = true;
    clearTimeout(timer);
    try {
      const answer = await fetch(location.pathname, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
      if (!answer.ok) throw new Error(answer.statusText);
      show(await answer.text());
      since = null;
      say("live");
    } catch {
      since ??= new Date().toISOString().slice(11, 19);
      say(`not answering since ${since} UTC`);
    }
    asking = false;
    timer = setTimeout(ask, EVERY);
  };

  document.addEventListener("visibilitychange", ask);
  say("live");
  timer = setTimeout(ask, EVERY);
})();
