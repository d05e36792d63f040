// The cluster: its servers, its instances, which of them this relay is, and what is wrong with it.

import { byId, el, fill, rows } from "./dom.js";
import { duration, number, percent } from "./format.js";

const MOST_SPLICED = 0.2;
const FEWEST = 20;
const OLD_LEASE_S = 4;
const OLD_LIST_S = 5;

const sum = (list, key) => list.reduce((total, one) => total + one[key], 0);
const counted = (count, noun) => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Return the share of connections that are spliced. Each one is open at two instances. */
function splicedShare(instances) {
  const spliced = sum(instances, "spliced");
  const connections = sum(instances, "connections") - spliced;
  return connections > 0 ? spliced / connections : 0;
}

/** Return what is wrong: a list of {word, text, isSevere}. */
export function judgeCluster(cluster) {
  const found = [];
  const away = cluster.servers.filter((server) => server.problem);
  const isInstance = cluster.here.length > 0;
  for (const server of away) {
    const claims = cluster.on_outage === "refuse" ? "new claims are answered 503" : "new claims are served where they arrive";
    const effect = `Connections go on; limits hold for each process alone${isInstance ? `, and ${claims}` : ""}.`;
    found.push({ word: "Server away", text: `${server.name}, for ${duration(server.away_s)}: ${server.problem}. ${effect}`, isSevere: true });
  }
  if (!cluster.is_secret_shared) {
    const text = `Another cluster named ${cluster.name} uses the server with another secret, so nothing is shared with it. Choose another --cluster-name, or the same --cluster-secret-file.`;
    found.push({ word: "Two secrets", text, isSevere: true });
  }
  if (isInstance && !away.length && cluster.lease_age_s !== null && cluster.lease_age_s > OLD_LEASE_S) {
    found.push({ word: "Old lease", text: `The lease here was renewed ${duration(cluster.lease_age_s)} ago, and lasts 6 s. The process or the server is too slow.`, isSevere: true });
  }
  const instances = cluster.instances ?? [];
  for (const one of instances.filter((each) => !each.proven)) {
    const text = `The address of instance ${one.address} is not proven, so nothing is sent there. See who can write to the server.`;
    found.push({ word: "Forged instance", text, isSevere: true });
  }
  for (const one of instances.filter((each) => each.state === "up" && each.link)) {
    const text = `${one.address} cannot be reached from here, for ${duration(one.link.since_s)}: ${one.link.problem}. Connections that belong there are answered 503.`;
    found.push({ word: "Instance cut off", text, isSevere: true });
  }
  for (const server of cluster.servers) {
    for (const one of server.sentinels.filter((each) => each.problem)) {
      found.push({ word: "Sentinel away", text: `${one.name}, for ${duration(one.away_s)}: ${one.problem}. Without most of the sentinels there is no failover.`, isSevere: false });
    }
  }
  const living = instances.filter((each) => each.lease_s > 0);
  const share = splicedShare(living);
  if (share > MOST_SPLICED && sum(living, "connections") - sum(living, "spliced") >= FEWEST) {
    const text = `${percent(share)} of all connections are passed on between instances: the balancer does not send the peers of one key to one instance.`;
    found.push({ word: "Many splices", text, isSevere: false });
  }
  return found;
}

function lease(one) {
  if (!one.proven) return el("td", { class: "bad" }, "not proven");
  if (one.state === "left") return el("td", {}, `left ${duration(one.gone_s)} ago`);
  if (one.state === "up" && one.link) return el("td", { class: "bad" }, "cannot be reached from here");
  if (one.lease_s <= 0) return el("td", { class: "bad" }, `over for ${duration(-one.lease_s)}`);
  return el("td", { class: one.renewed_s > OLD_LEASE_S ? "bad" : "" }, `renewed ${duration(one.renewed_s)} ago`);
}

function row(one, here) {
  const figure = (text, extra = "") => el("td", { class: `number ${extra}` }, text);
  const share = one.connections ? one.spliced / one.connections : 0;
  const isHere = here.includes(one.address);
  return [
    el("th", { scope: "row", class: "address" }, one.address, ...(isHere ? [el("span", { class: "tag" }, here.length > 1 ? "this host" : "this one")] : [])),
    lease(one),
    figure(number(one.keys)),
    figure(number(one.connections)),
    figure(number(one.spliced)),
    figure(percent(share), share > MOST_SPLICED && one.connections >= FEWEST ? "bad" : ""),
    figure(number(one.arrived)),
  ];
}

function note(cluster) {
  if (!cluster.here.length) return `Cluster ${cluster.name}: processes that share limits: ${number(cluster.members)}. Without --cluster-listen, this one is no instance.`;
  if (cluster.instances === null) return `Cluster ${cluster.name}. The instances are not known yet.`;
  const living = cluster.instances.filter((one) => one.lease_s > 0);
  const age = cluster.listed_s > OLD_LIST_S ? ` As it was ${duration(cluster.listed_s)} ago.` : "";
  return `Cluster ${cluster.name}: ${counted(living.length, "instance")}, ${counted(sum(living, "keys"), "key")}, ${percent(splicedShare(living))} of the connections are spliced.${age}`;
}

/** Replace the warnings if they are about something else: screen readers announce each change. */
function showAlerts(alerts) {
  const area = byId("cluster-alerts");
  const words = alerts.map((alert) => alert.word).join();
  if (area.dataset.words === words) {
    alerts.forEach((alert, at) => fill(area.children[at].lastChild, ` ${alert.text}`));
    return;
  }
  area.dataset.words = words;
  fill(area, ...alerts.map((alert) => el("p", { class: alert.isSevere ? "alert severe" : "alert" }, el("strong", {}, alert.word), el("span", {}, ` ${alert.text}`))));
}

/** Show the cluster, or nothing if the relay is in none. */
export function showCluster(cluster) {
  byId("cluster").hidden = byId("cluster-link").hidden = !cluster;
  showAlerts(cluster ? judgeCluster(cluster) : []);
  if (!cluster) return;
  byId("cluster-table").hidden = !cluster.instances?.length;
  fill(byId("cluster-rows"), ...rows((cluster.instances ?? []).map((one) => row(one, cluster.here))));
  fill(byId("cluster-note"), note(cluster));
  const servers = cluster.servers.map((server) =>
    el("li", { class: server.problem ? "bad" : "" }, `server ${server.name}: ${server.problem ? `away for ${duration(server.away_s)}` : server.sentinels.length ? `in use at ${server.address}` : "in use"}`),
  );
  fill(byId("cluster-servers"), ...servers);
}
