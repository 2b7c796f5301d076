// A browser starts no Worker from a file. Where the site is read from a folder, a frame does the search's work instead.
if (location.protocol === "file:") {
  const send = (target, data) => {
    const event = new MessageEvent("message", { data: structuredClone(data) });
    setTimeout(() => target.dispatchEvent(event)); // later, as a Worker's messages come
  };

  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => send(this, data);
      this.addEventListener("message", (event) => this.onmessage?.(event));
      const script = this.inside.document.createElement("script");
      script.src = url;
      this.ready = new Promise((done) => script.addEventListener("load", done));
      this.inside.document.body.append(script);
    }

    postMessage(data) {
      this.ready.then(() => send(this.inside, data));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
