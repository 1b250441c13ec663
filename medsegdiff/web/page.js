// Runs in the visitor's browser: files stay there until Segment is pressed, and go as base64.
window.medsegdiff = {
  // What an area's files hold, as JSON; null for what the server would refuse for its size.
  async files(area) {
    const found = {}, most = Number(document.querySelector(`#${area} input`).dataset.most);
    for (const file of document.querySelector(`#${area} input`).files) {
      found[file.name] = file.size > most ? null : await new Promise((done, failed) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
        reader.onerror = () => failed(reader.error);
        reader.readAsDataURL(file);
      });
    }
    return JSON.stringify(found);
  },
  // The files that are there once an example is chosen: it is an image without a ground truth.
  async given(example) {
    if (example) for (const input of document.querySelectorAll("#image input, #truth input")) input.value = "";
    return this.files("image");
  },
  // Files that are picked, or dropped anywhere on an area.
  area(element, changed) {
    const input = element.querySelector("input");
    input.addEventListener("change", changed);
    element.addEventListener("dragover", (event) => event.preventDefault());
    element.addEventListener("drop", (event) => {
      event.preventDefault();
      if (!event.dataTransfer.files.length) return;
      input.files = event.dataTransfer.files;
      changed();
    });
  },
  // Show one slice of each volume on the page.
  show(number) {
    for (const frame of document.querySelectorAll("[data-slice]"))
      frame.hidden = Number(frame.dataset.slice) !== number;
  },
  // Say when the server has gone, and when it is there again.
  watch() {
    let gone = false;
    setInterval(async () => {
      const there = await fetch("gradio_api/app_id").then((reply) => reply.ok, () => false);
      const words = document.querySelector("#connection");
      if (words && there === gone) {
        gone = !there;
        words.textContent = gone
          ? "The server does not answer. Was it stopped? When it is there again this page goes on, or begins anew if it was at work."
          : "The server answers again. Press Segment to go on.";
      }
    }, 2000);
  },
};
