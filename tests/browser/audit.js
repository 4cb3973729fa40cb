// What a page owes those who see, hear or steer it otherwise: gives a sentence for each fault.
// Rules of WCAG 2.2 AA that a program can judge; run by test_for_all.py.
() => {
  const faults = [];
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const told = (element) => element.outerHTML.replace(/\s+/g, " ").slice(0, 120);
  const fault = (rule, element, more = "") => faults.push(`${rule}${more ? " " + more : ""}: ${told(element)}`);
  const shown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;

  // -- the page as a whole
  if (!document.documentElement.lang) faults.push("no language");
  if (!document.title.trim()) faults.push("no title");
  if (all("main").length !== 1) faults.push(`${all("main").length} main landmarks`);
  if (all("h1").filter(shown).length !== 1) faults.push(`${all("h1").length} first headings`);
  let depth = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6").filter(shown)) {
    const level = Number(heading.tagName[1]);
    if (level > depth + 1) fault("a heading that skips a level", heading);
    if (!heading.textContent.trim()) fault("an empty heading", heading);
    depth = level;
  }
  for (const one of all("nav")) if (!one.ariaLabel && !one.getAttribute("aria-labelledby")) fault("a nameless landmark", one);
  const ids = all("[id]").map((one) => one.id);
  for (const id of new Set(ids.filter((one, place) => ids.indexOf(one) !== place))) faults.push(`id ${id} is there twice`);
  for (const name of ["for", "aria-labelledby", "aria-describedby", "aria-controls"]) {
    for (const one of all(`[${name}]`)) {
      for (const id of one.getAttribute(name).split(/\s+/)) if (!document.getElementById(id)) fault(`${name} leads nowhere`, one);
    }
  }
  for (const one of all("body *").filter(shown)) {
    const own = [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (own && !one.closest("main, header, footer, nav, section[aria-label], [role=status], [role=alert], .skip")) fault("text outside of every landmark", one);
  }

  const landmarks = all("section[aria-labelledby], [role=region], nav").filter(shown);
  const names = landmarks.map((one) => one.ariaLabel ?? document.getElementById(one.getAttribute("aria-labelledby"))?.textContent);
  for (const [place, one] of landmarks.entries()) if (names.indexOf(names[place]) !== place) fault("a landmark named as another", one);
  for (const one of all("main *").filter(shown)) {
    const scrolls = /auto|scroll/.test(getComputedStyle(one).overflow) && (one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight);
    const reached = "a[href], button, input, select, textarea, summary, [tabindex='0']";
    if (scrolls && !one.matches(reached) && !all(reached, one).length) fault("what scrolls, but not by the keyboard", one);
  }

  // -- names
  const nameOf = (element) => {
    const by = (element.getAttribute("aria-labelledby") ?? "").split(/\s+/).filter(Boolean);
    if (by.length) return by.map((id) => document.getElementById(id)?.textContent ?? "").join(" ");
    if (element.ariaLabel) return element.ariaLabel;
    if (element.labels?.length) return [...element.labels].map((label) => [...label.childNodes].filter((node) => node !== element && !node.contains?.(element)).map((node) => node.textContent).join("")).join(" ");
    const title = element instanceof SVGElement ? element.querySelector("title")?.textContent : element.title;
    if (["INPUT", "SELECT", "TEXTAREA"].includes(element.tagName)) return title ?? "";
    const clone = element.cloneNode(true);
    all("[aria-hidden=true]", clone).forEach((one) => one.remove());
    return clone.textContent.trim() || title || "";
  };
  const controls = all("a[href], button, input:not([type=hidden]), select, textarea, summary").filter(shown);
  for (const one of controls) if (!nameOf(one).trim()) fault("a control without a name", one);
  for (const one of all("[role=img], img, svg").filter(shown)) {
    if (!one.ariaLabel && !one.alt && !one.closest("[aria-hidden=true]")) fault("a picture without words", one);
    if (one.getAttribute("role") === "img" && one.querySelector("a, button, [tabindex]")) fault("a picture that hides controls", one);
  }
  for (const one of all("progress, [role=progressbar]").filter(shown)) if (!nameOf(one).trim()) fault("a bar without a name", one);
  for (const one of all("th").filter(shown)) {
    if (!one.scope) fault("a head of a table that heads nothing", one);
    if (!one.textContent.trim()) fault("an empty head of a table", one);
  }
  for (const one of all("[tabindex]")) if (one.tabIndex > 0) fault("an order of its own", one);
  for (const one of all("ul, ol")) for (const child of one.children) if (child.tagName !== "LI") fault("no item of the list", child);
  for (const one of all("dt, dd")) if (!one.closest("dl")) fault("no list of terms", one);

  for (const one of all(".state").filter(shown)) if (!/\p{L}{2}/u.test(one.textContent)) fault("a state without its word", one);

  // -- colours
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue, alpha] = canvas.getImageData(0, 0, 1, 1).data;
    return [red, green, blue, alpha / 255];
  };
  const over = (top, ground) => top.slice(0, 3).map((value, place) => value * top[3] + ground[place] * (1 - top[3]));
  const groundOf = (element) => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.push(rgba(getComputedStyle(one).backgroundColor));
    const canvasColour = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
    return layers.reverse().reduce((ground, layer) => over(layer, ground), canvasColour);
  };
  const light = (colour) => {
    const [red, green, blue] = colour.map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const contrast = (one, other) => {
    const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
    return (bright + 0.05) / (dark + 0.05);
  };
  for (const one of all("body *").filter(shown)) {
    if (!("value" in one && one.value) && ![...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) continue;
    const style = getComputedStyle(one);
    if (one.closest("[aria-hidden=true]") && !one.textContent.trim()) continue;
    const ground = groundOf(one instanceof SVGElement ? one.closest("svg").parentElement : one);
    const colour = over(rgba(one instanceof SVGElement ? style.fill : style.color), ground);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    const found = contrast(colour, ground);
    if (found < (large ? 3 : 4.5)) fault("too little contrast", one, found.toFixed(2));
  }
  for (const one of all("[placeholder]").filter((one) => shown(one) && !one.value)) {
    const ground = groundOf(one);
    const style = getComputedStyle(one, "::placeholder");
    const found = contrast(over(rgba(style.color).with(3, Number(style.opacity)), ground), ground);
    if (found < 4.5) fault("too pale a placeholder", one, found.toFixed(2));
  }
  for (const one of all("input:not([type=hidden], [type=checkbox]), select, textarea, button").filter(shown)) {
    const ground = groundOf(one.parentElement);
    const edge = contrast(over(rgba(getComputedStyle(one).borderTopColor), ground), ground);
    if (edge < 3) fault("a control whose edge is not seen", one, edge.toFixed(2));
  }

  // -- targets: 24 pixels, or as much room around their middle; not those within a sentence, nor pictures that only repeat
  const targets = controls.filter((one) => !one.closest("svg, .skip"));
  const boxes = new Map(targets.map((one) => [one, one.getBoundingClientRect()]));
  const sentence = (one) => one.tagName === "A" && getComputedStyle(one).display === "inline"
    && [...one.parentElement.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && /[\p{L}\d]/u.test(node.data));
  for (const [one, box] of boxes) {
    if ((box.width >= 24 && box.height >= 24) || sentence(one)) continue;
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    for (const [other, near] of boxes) {
      if (other === one || sentence(other) || other.contains(one) || one.contains(other)) continue;
      const dx = Math.max(near.left - x, x - near.right, 0);
      const dy = Math.max(near.top - y, y - near.bottom, 0);
      if (Math.hypot(dx, dy) < 12) {
        fault("too small a target", one, `${box.width.toFixed()}x${box.height.toFixed()}`);
        break;
      }
    }
  }
  return faults;
}
