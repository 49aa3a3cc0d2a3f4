// The camera's newest frame is sent to /frame; the next is sent only after its faces have come back, so no queue builds up.
const part = (name) => element.querySelector(`.fer-${name}`);
const [start, snapshot, rate, words, view, bars, video] =
  ["start", "snapshot", "rate", "words", "view", "bars", "video"].map(part);
const pen = view.getContext("2d");
const page = new URL(".", document.baseURI);
const who = crypto.getRandomValues(new Uint32Array(2)).join("-");
let stream = null;
const answered = [];

function hide([x, y, width, height]) {
  const few = document.createElement("canvas");
  few.width = few.height = 6;
  // Only what lies within the picture: a cell across its edge would stay transparent in part, and show the face.
  const left = Math.max(0, Math.round(x - 0.2 * width)), top = Math.max(0, Math.round(y - 0.2 * height));
  const w = Math.min(view.width, Math.round(x + 1.2 * width)) - left;
  const h = Math.min(view.height, Math.round(y + 1.2 * height)) - top;
  few.getContext("2d").drawImage(view, left, top, w, h, 0, 0, 6, 6);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(few, left, top, w, h);
}

function draw(picture, faces, anonymous) {
  view.width = picture.width;
  view.height = picture.height;
  pen.drawImage(picture, 0, 0);
  if (anonymous) faces.forEach((face) => hide(face.box));
  pen.font = "16px system-ui, sans-serif";
  for (const face of faces) {
    const [x, y, width, height] = face.box;
    pen.strokeStyle = pen.fillStyle = face.colour;
    pen.lineWidth = 2;
    pen.strokeRect(x, y, width, height);
    const text = `${face.track}: ${face.emotion} ${Math.round(100 * face.confidence)}%`;
    const top = Math.max(y - 22, 0);
    pen.fillRect(x, top, pen.measureText(text).width + 8, 22);
    pen.fillStyle = "#000";
    pen.fillText(text, x + 4, top + 16);
  }
}

function showBars(face) {
  bars.replaceChildren();
  if (!face) return;
  const cell = (kind, text = "") => {
    const node = document.createElement("div");
    node.className = kind;
    node.textContent = text;
    bars.append(node);
    return node;
  };
  cell("who", `Person ${face.track}: ${face.emotion}`);
  for (const [name, p] of Object.entries(face.probabilities)) {
    cell("name", name);
    const fill = document.createElement("div");
    fill.className = "fill";
    fill.style.width = `${100 * p}%`;
    cell("track").append(fill);
    cell("share", `${Math.round(100 * p)}%`);
  }
}

function count(milliseconds) {
  const now = performance.now();
  answered.push(now);
  while (answered[0] < now - 2000) answered.shift();
  const perSecond = answered.length / Math.max(0.5, (now - answered[0]) / 1000);
  rate.textContent = `${perSecond.toFixed(1)} results/s, ${Math.round(milliseconds)} ms from picture to result`;
  element.dataset.results = Number(element.dataset.results || 0) + 1;
  element.dataset.rate = perSecond;
  element.dataset.delay = milliseconds;
}

async function once(mine) {
  const taken = performance.now();
  const picture = document.createElement("canvas");
  picture.width = video.videoWidth;
  picture.height = video.videoHeight;
  picture.getContext("2d").drawImage(video, 0, 0);
  const jpeg = await new Promise((done) => picture.toBlob(done, "image/jpeg", 0.85));
  const address = new URL("frame", page);
  address.search = new URLSearchParams({ who, ...JSON.parse(props.value) });
  const reply = await fetch(address, { method: "POST", body: jpeg });
  const answer = await reply.json().catch(() => ({}));
  if (stream !== mine) return;  // stopped in the meantime
  if (!reply.ok) throw new Error(typeof answer.detail === "string" ? answer.detail : reply.statusText);
  draw(picture, answer.faces, JSON.parse(props.value).anonymous);
  showBars(answer.faces[0]);
  words.textContent = answer.faces.length ? "" : "No face is seen: come closer, face the camera, or turn on a light.";
  count(performance.now() - taken);
}

async function run(mine) {
  while (stream === mine) {
    try {
      await once(mine);
    } catch (error) {
      words.textContent = `That did not work: ${error.message}`;
      await new Promise((done) => setTimeout(done, 1000));
    }
  }
}

function stop() {
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  start.textContent = "Start camera";
  snapshot.disabled = true;
  rate.textContent = "";
}

start.addEventListener("click", async () => {
  if (stream) return stop();
  if (!window.isSecureContext) {
    words.textContent = "Browsers give their camera to https pages only, or to pages of the same machine.";
    return;
  }
  start.disabled = true;  // a second click before the browser's question is answered would start a second camera
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 }, audio: false });
  } catch (error) {
    words.textContent = error.name === "NotAllowedError"
      ? "The browser may not use the camera: allow it next to the address of this page, then start again."
      : "No camera was found, or another program uses it.";
    return;
  } finally {
    start.disabled = false;
  }
  words.textContent = "";
  stream.getVideoTracks()[0].addEventListener("ended", () => {  // unplugged; not fired by stop()
    if (stream) stop();
    words.textContent = "The camera was lost: connect it, and start again.";
  });
  video.srcObject = stream;
  await video.play();
  start.textContent = "Stop camera";
  snapshot.disabled = false;
  run(stream);
});

snapshot.addEventListener("click", () => {
  const link = document.createElement("a");
  link.download = `snapshot_${new Date().toISOString().replace(/[:.]/g, "-")}.png`;
  link.href = view.toDataURL("image/png");
  link.click();
});
