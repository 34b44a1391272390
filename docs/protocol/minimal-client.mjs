// node --experimental-websocket minimal-client.mjs URL TOKEN OTHER    (Node 22 needs no flag; a browser neither)
// What is typed goes to the direct chat with OTHER; what comes from anywhere is printed.
const [url, token, other] = process.argv.slice(2);
const seen = new Set(); // real clients keep this on disk, for 31 days,
const unsent = new Map(); // and this: messageId -> text, in the order of writing
const requestId = crypto.randomUUID(); // one for the life of the request, however often it is retried
const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));
let failures = 0;
let send = () => {}; // sends what is unsent, when there is a connection

function connect() {
  const socket = new WebSocket(url, "tidings.v1.json");
  const answers = new Map();
  let [lastId, heard, closing, chatId] = [0, Date.now(), {}, null];
  const once = (frame) => new Promise((resolve) => {
    answers.set((lastId += 1), resolve);
    socket.send(JSON.stringify({ ...frame, id: lastId }));
  });
  const ask = async (frame) => { // asks until it is known what became of it
    for (;;) {
      const answer = await once(frame);
      if (!answer.error?.retryable) return answer;
      await sleep(answer.error.retryAfterMs ?? 1000 * Math.random());
    }
  };
  let sending = false;
  const sendAll = async () => { // one after the other, so that retries keep the order
    if (sending || !chatId) return;
    sending = true;
    for (const [messageId, message] of unsent) {
      const { seq, error } = await ask({ type: "sendMessage", chatId, messageId, message });
      console.log(error ? `not sent: ${error.code}` : `sent as ${seq}`);
      unsent.delete(messageId);
    }
    sending = false;
  };
  socket.onopen = async () => {
    if ((await once({ type: "hello", token, name: "minimal client" })).type !== "welcome") return;
    ({ chatId } = await ask({ type: "createChat", requestId, participants: [other] }));
    (send = sendAll)();
  };
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    heard = Date.now();
    if (frame.type === "welcome") failures = 0;
    if (frame.type === "welcome" || frame.type === "reply") answers.get(frame.id)?.(frame);
    if (frame.error) console.log(frame.error.message);
    if (frame.type === "closing") closing = frame;
    const key = [frame.chatId, frame.clientId, frame.messageId].join();
    if (frame.type === "newMessage" && !seen.has(key)) console.log(`${frame.userId}: ${frame.message}`);
    if (frame.type === "newMessage") seen.add(key); // stored first, confirmed then
    if (frame.delivery) socket.send(JSON.stringify({ type: "received", through: frame.delivery }));
  };
  const alive = setInterval(() => {
    if (Date.now() - heard > 60_000) socket.close();
    else if (socket.readyState === WebSocket.OPEN) once({ type: "ping" });
  }, 25_000);
  socket.onclose = ({ code }) => {
    clearInterval(alive);
    send = () => {};
    if ([4400, 4401, 4403, 4409, 4413].includes(code)) { // 4401: a real client gets a new token
      console.log(`closed: ${code}`);
      process.exit(1);
    }
    failures += 1;
    setTimeout(connect, closing.retryAfterMs ?? Math.random() * Math.min(30_000, 500 * 2 ** failures));
  };
}

connect();
for await (const line of (await import("node:readline")).createInterface({ input: process.stdin })) {
  unsent.set(crypto.randomUUID(), line);
  send();
}
