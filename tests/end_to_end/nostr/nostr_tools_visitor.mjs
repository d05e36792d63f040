// What people do every day, by the clients of nostr-tools: node nostr_tools_visitor.mjs FOLDER URL SCENARIO
//
// FOLDER has the packages of npm/package.json. A scenario ends with exit code 0, or with an exception. It prints lines
// where the test has something to do meanwhile.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { webcrypto } from "node:crypto";

const [folder, url, scenario] = process.argv.slice(2);
const require = createRequire(`${folder}/`);
globalThis.crypto ??= webcrypto; // Node 18
const WebSocket = require("ws");
const { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } = require("nostr-tools/pure");
const { Relay, useWebSocketImplementation } = require("nostr-tools/relay");
const pools = require("nostr-tools/pool");
const nip17 = require("nostr-tools/nip17");
useWebSocketImplementation(WebSocket);
pools.useWebSocketImplementation(WebSocket);

const now = () => Math.floor(Date.now() / 1000);

class Author {
    secret = generateSecretKey();
    pubkey = getPublicKey(this.secret);

    event(kind, content, tags = [], created_at = now()) {
        return finalizeEvent({ kind, content, tags, created_at }, this.secret);
    }

    signs = (template) => Promise.resolve(finalizeEvent(template, this.secret));
}

const ids = (events) => events.map((event) => event.id);

// The stored events that match, in the order in which they came.
function fetch(relay, filter) {
    return new Promise((resolve, reject) => {
        const events = [];
        const subscription = relay.subscribe([filter], {
            onevent: (event) => events.push(event),
            oninvalidevent: (event) => reject(new Error(`invalid: ${JSON.stringify(event)}`)),
            onclose: (reason) => reject(new Error(reason)),
            oneose: () => {
                subscription.onclose = undefined;
                subscription.close();
                resolve(events);
            },
            eoseTimeout: 60_000,
        });
    });
}

// A live subscription: `next()` is the next event.
async function follow(relay, filter) {
    const arrived = [];
    let wake = () => {};
    await new Promise((resolve) =>
        relay.subscribe([filter], {
            onevent: (event) => {
                arrived.push(event);
                wake();
            },
            oneose: resolve,
            eoseTimeout: 60_000,
        }),
    );
    return {
        async next() {
            while (!arrived.length) await new Promise((resolve) => (wake = resolve));
            return arrived.shift();
        },
    };
}

async function rejected(promise, expected) {
    await assert.rejects(promise, (error) => {
        assert.equal(error.message, expected);
        return true;
    });
}

const scenarios = {
    async publishing() {
        const [relay, author] = [await Relay.connect(url), new Author()];
        const notes = Array.from({ length: 10 }, (_, n) => author.event(1, `note ${n} "é"\n\u0000`, [["t", `${n % 2}`]], 1_700_000_000 + n));
        for (const note of notes) assert.equal(await relay.publish(note), "");
        assert.equal(await relay.publish(notes[0]), "duplicate: already have this event");
        const newest = ids(notes).reverse();
        const mine = { authors: [author.pubkey] };
        const found = await fetch(relay, mine);
        assert.deepEqual(ids(found), newest);
        assert.ok(found.every(verifyEvent));
        assert.deepEqual(ids(await fetch(relay, { ...mine, limit: 3 })), newest.slice(0, 3));
        assert.deepEqual(ids(await fetch(relay, { ...mine, "#t": ["1"] })), newest.filter((_, n) => n % 2 === 0));
        assert.deepEqual(ids(await fetch(relay, { ...mine, since: 1_700_000_002, until: 1_700_000_003 })), newest.slice(6, 8));
        assert.deepEqual(await fetch(relay, { ...mine, kinds: [7] }), []);
        await rejected(relay.publish({ ...notes[0], content: "forged" }), "invalid: id is not the hash of the event");
        relay.close();
    },

    async subscribing() {
        const [publisher, reader, author] = [await Relay.connect(url), await Relay.connect(url), new Author()];
        const live = await follow(reader, { authors: [author.pubkey], kinds: [1, 20001] });
        for (let n = 0; n < 5; n++) {
            const note = author.event(n % 2 ? 20001 : 1, `live ${n}`);
            assert.equal(await publisher.publish(note), "");
            assert.equal((await live.next()).id, note.id);
        }
        publisher.close();
        reader.close();
    },

    async replacing() {
        const [relay, author] = [await Relay.connect(url), new Author()];
        for (const [kind, tags] of [[0, []], [3, []], [10002, []], [30023, [["d", "article"]]]]) {
            const versions = [0, 1, 2].map((n) => author.event(kind, `version ${n}`, tags, 1_700_000_000 + n));
            await relay.publish(versions[1]);
            await relay.publish(versions[2]);
            await rejected(relay.publish(versions[0]), "duplicate: have a newer version");
            assert.deepEqual(ids(await fetch(relay, { authors: [author.pubkey], kinds: [kind] })), [versions[2].id]);
        }
        relay.close();
    },

    async deleting() {
        const [relay, author] = [await Relay.connect(url), new Author()];
        const [note, article] = [author.event(1, "regretted"), author.event(30023, "regretted", [["d", "x"]])];
        const mine = { authors: [author.pubkey], kinds: [1, 30023] };
        for (const event of [note, article]) await relay.publish(event);
        assert.equal((await fetch(relay, mine)).length, 2);
        await relay.publish(author.event(5, "", [["e", note.id], ["a", `30023:${author.pubkey}:x`]]));
        assert.deepEqual(await fetch(relay, mine), []);
        for (const event of [note, article]) await rejected(relay.publish(event), "blocked: deleted by its author");
        relay.close();
    },

    async counting() {
        const [relay, author] = [await Relay.connect(url), new Author()];
        for (let n = 0; n < 4; n++) await relay.publish(author.event(1, `note ${n}`, [["t", author.pubkey]]));
        assert.equal(await relay.count([{ authors: [author.pubkey], limit: 2 }], {}), 4);
        const { count, hll } = await relay.countWithHLL([{ "#t": [author.pubkey] }], {});
        assert.equal(count, 4);
        assert.match(hll, /^[0-9a-f]{512}$/);
        relay.close();
    },

    // The relay wants authentication for reading and writing.
    async authenticating() {
        const [stranger, pool, author] = [await Relay.connect(url), new pools.SimplePool(), new Author()];
        await rejected(stranger.publish(author.event(1, "nobody")), "auth-required: authenticate to publish here");
        await rejected(fetch(stranger, {}), "auth-required: authenticate to read here");
        const note = author.event(1, "somebody");
        assert.equal(await pool.publish([url], note, { onauth: author.signs })[0], "");
        const found = await new Promise((resolve) => {
            const events = [];
            pool.subscribeManyEose([url], {}, { onauth: author.signs, onevent: (event) => events.push(event), onclose: () => resolve(events) });
        });
        assert.deepEqual(ids(found), [note.id]);
        assert.equal(await stranger.auth(author.signs), "");
        assert.deepEqual(ids(await fetch(stranger, {})), [note.id]);
        stranger.close();
        pool.destroy();
    },

    async messaging() {
        const [alice, bob, eve] = [new Author(), new Author(), new Author()];
        const [sender, recipient, snoop, stranger] = await Promise.all([0, 1, 2, 3].map(() => Relay.connect(url)));
        const toBob = { kinds: [1059], "#p": [bob.pubkey] };
        for (const relay of [recipient, snoop, stranger]) {
            await rejected(fetch(relay, toBob), "auth-required: these kinds are for their recipients");
        }
        await recipient.auth(bob.signs);
        await snoop.auth(eve.signs);
        const live = await follow(recipient, toBob);
        const spied = await follow(snoop, { "#p": [bob.pubkey] });
        const wrap = nip17.wrapEvent(alice.secret, { publicKey: bob.pubkey }, "only for you");
        assert.equal(await sender.publish(wrap), "");
        assert.equal(nip17.unwrapEvent(await live.next(), bob.secret).content, "only for you");
        assert.deepEqual(ids(await fetch(recipient, toBob)), [wrap.id]);
        for (const relay of [snoop, stranger]) assert.deepEqual(await fetch(relay, { ids: [wrap.id] }), []);
        assert.equal(await snoop.count([{ ids: [wrap.id] }], {}), 0);
        const open = alice.event(1, "for all", [["p", bob.pubkey]]);
        await sender.publish(open);
        assert.equal((await spied.next()).id, open.id);
        for (const relay of [sender, recipient, snoop, stranger]) relay.close();
    },

    // The test kills the relay, starts another, and publishes what is waited for here.
    async reconnecting() {
        const author = new Author();
        const relay = new Relay(url, { enableReconnect: true });
        relay.resubscribeBackoff = [200];
        await relay.connect();
        const note = author.event(1, "before");
        await relay.publish(note);
        const live = await follow(relay, { "#t": ["restart"] });
        console.log("ready");
        assert.equal((await live.next()).content, "after");
        assert.deepEqual(ids(await fetch(relay, { ids: [note.id] })), [note.id]);
        relay.close();
    },
};

await scenarios[scenario]();
process.exit(0);
