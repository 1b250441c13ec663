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
          ? "The server does not answer. Was it stopped? Your image stays here; press Segment when it is there again."
          : "The server answers again. Press Segment to go on.";
      }
    }, 2000);
  },
};
