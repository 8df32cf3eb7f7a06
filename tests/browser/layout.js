// The faults of the page that is open, a line each: "fault: where". Run by layout.py after the page has loaded.
// Code and prompts, which nbconvert draws its own way, are taken out of the page for as long as it is searched.
(() => {
  const faults = []
  const add = (fault, element, words = "") => {
    const text = (element.textContent || element.alt || element.outerHTML).trim().replace(/\s+/g, " ").slice(0, 80)
    faults.push(`${fault}: ${words}<${element.localName}> ${text}`)
  }
  const without = document.head.appendChild(document.createElement("style"))
  without.textContent = ".jp-InputArea-editor, .jp-InputPrompt, .jp-OutputPrompt { display: none }"
  const page = document.documentElement, width = page.clientWidth
  const all = [...document.body.querySelectorAll("*")].filter(e => e.checkVisibility() && !e.closest("svg, math"))

  for (const image of document.images) {
    if (!image.complete || !image.naturalWidth) add("broken picture", image)
    if (!image.alt.trim()) add("picture without words", image)
    if (image.checkVisibility() && image.width < 0.49 * image.naturalWidth) add("tiny picture", image)
  }

  // Wider than the page, unless it or something around it scrolls; only the outermost is named.
  const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
  const reachable = e => e && (scrolls(e) || reachable(e.parentElement === document.body ? null : e.parentElement))
  const wide = new Set()
  for (const e of all) {
    const { left, right, width: own } = e.getBoundingClientRect()
    if (!own || (right <= width + 1 && left >= -1) || reachable(e.parentElement)) continue
    if (!wide.has(e.parentElement)) add("wider than the page", e, `${Math.round(left)} to ${Math.round(right)} px `)
    wide.add(e)
  }
  if (page.scrollWidth > width && !wide.size) add("wider than the page", page)
  for (const e of all) {
    if (["hidden", "clip"].includes(getComputedStyle(e).overflowX) && e.scrollWidth > e.clientWidth + 1 && e.clientWidth)
      add("cut off", e)
  }

  const outputs = type => document.querySelectorAll(`[data-mime-type="${type}"]`)
  for (const kind of ["error", "stderr"]) outputs(`application/vnd.jupyter.${kind}`).forEach(e => add("error output", e))
  const raw = /<[\w.]+( object)? at 0x|<IPython\.|<Figure size|^\w+\(children=\(|Error displaying widget/
  for (const kind of ["text/plain", "application/vnd.jupyter.stdout"])
    outputs(kind).forEach(e => raw.test(e.textContent.trim()) && add("raw object", e))

  // Contrast as WCAG 2 defines it, 4.5 at least; colours are composed from the text outwards, with every opacity.
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 })
  const brush = canvas.getContext("2d", { willReadFrequently: true })
  const known = new Map()
  const rgba = colour => {
    if (!known.has(colour)) {
      brush.clearRect(0, 0, 1, 1)
      brush.fillStyle = colour
      brush.fillRect(0, 0, 1, 1)
      const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data
      known.set(colour, [r, g, b, a / 255])
    }
    return known.get(colour)
  }
  const over = ([r, g, b, a], [R, G, B, A]) => {
    const alpha = a + A * (1 - a), mix = (x, X) => (alpha ? (x * a + X * A * (1 - a)) / alpha : 0)
    return [mix(r, R), mix(g, G), mix(b, B), alpha]
  }
  const probe = document.body.appendChild(document.createElement("i"))
  probe.style.backgroundColor = "Canvas"
  const paper = getComputedStyle(probe).backgroundColor
  probe.remove()
  const luminance = rgb => {
    const [r, g, b] = rgb.slice(0, 3).map(v => v / 255).map(v => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const contrast = element => {
    let text = rgba(getComputedStyle(element).color), back = [0, 0, 0, 0]
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e), behind = rgba(style.backgroundColor)
      text = over(text, behind)
      back = over(back, behind)
      text[3] *= style.opacity
      back[3] *= style.opacity
    }
    const [dark, light] = [text, back].map(c => luminance(over(c, rgba(paper)))).sort((a, b) => a - b)
    return (light + 0.05) / (dark + 0.05)
  }
  for (const e of all) {
    const texts = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim())
    if (!texts) continue
    const ratio = contrast(e)
    if (ratio < 4.5) add("faint text", e, `${ratio.toFixed(1)} `)
  }
  without.remove()
  return faults
})()
