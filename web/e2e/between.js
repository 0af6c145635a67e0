// Runs in a page before its own code: a signalling operator who has got past the
// sealing of the signals, and stands between the page and the device that it
// calls, with DTLS connections of his own to either. What both say he passes on.
//
// The page's offer is replaced by that of his connection to the device, and the
// device's answer by that of his connection to the page.

(() => {
  const Real = RTCPeerConnection;
  const seen = (window.between = { passed: 0, open: 0 });
  class Between extends Real {
    #near; // to the page
    #far; // to the device
    #mine = [];

    constructor(...a) {
      super(...a);
      [this.#near, this.#far] = [new Real(), new Real()];
      const pipes = [this.#far.createDataChannel("peerlink", { ordered: true })];
      this.#far.createDataChannel("peerlink.datagrams", { ordered: false, maxRetransmits: 0 });
      this.#near.ondatachannel = (e) => {
        if (e.channel.label !== "peerlink") return;
        pipes.push(e.channel);
        for (const [from, to] of [pipes, [...pipes].reverse()]) {
          from.binaryType = "arraybuffer";
          const waiting = [];
          to.addEventListener("open", () => waiting.splice(0).forEach((m) => to.send(m)));
          from.onmessage = (m) => {
            seen.passed++;
            if (to.readyState === "open") to.send(m.data);
            else waiting.push(m.data);
          };
          from.onopen = () => seen.open++;
          if (from.readyState === "open") seen.open++;
        }
      };
      super.addEventListener("icecandidate", (e) => e.candidate && void this.#tell(this.#near, e.candidate));
      this.#near.onicecandidate = (e) => e.candidate && void super.addIceCandidate(e.candidate);
    }

    // A candidate that comes before its description waits for that.
    async #tell(pc, c) {
      while (!pc.remoteDescription) await new Promise((r) => pc.addEventListener("signalingstatechange", r, { once: true }));
      await pc.addIceCandidate(c);
    }

    // The page hears of his candidates as of its own.
    set onicecandidate(f) {
      this.#far.onicecandidate = f;
    }

    get localDescription() {
      return this.#far.localDescription;
    }

    async setLocalDescription(d) {
      await super.setLocalDescription(d);
      await this.#far.setLocalDescription(await this.#far.createOffer());
      await this.#near.setRemoteDescription(super.localDescription);
      await this.#near.setLocalDescription(await this.#near.createAnswer());
    }

    async setRemoteDescription(d) {
      await super.setRemoteDescription(this.#near.localDescription);
      await this.#far.setRemoteDescription(d);
    }

    addIceCandidate(c) {
      return this.#tell(this.#far, c);
    }

    close() {
      super.close();
      this.#near.close();
      this.#far.close();
    }
  }
  window.RTCPeerConnection = Between;
})();
