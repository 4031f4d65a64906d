/* Figures for libvirt's test driver, which has none: loaded before libvirt (LD_PRELOAD), it answers the sampling call
 * for all active domains as QEMU's driver does for a VM with two disks and a network interface. Every counter moves
 * between two calls, so that all that is written of every VM must be written anew: the worst that sampling can do.
 * After FIGURES_CALLS calls, if that is set, there are no more: what is known stays as it is. */
#include <libvirt/libvirt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

struct figures {
    virTypedParameterPtr params;
    int used, room, failed;
};

static void number(struct figures *to, const char *name, unsigned long long value)
{
    to->failed |= virTypedParamsAddULLong(&to->params, &to->used, &to->room, name, value);
}

static void text(struct figures *to, const char *name, const char *value)
{
    to->failed |= virTypedParamsAddString(&to->params, &to->used, &to->room, name, value);
}

static void counters(struct figures *to, const char *group, int index, const char *const *names,
                     unsigned long long now)
{
    char name[64];
    for (int i = 0; names[i]; i++) {
        snprintf(name, sizeof name, "%s.%d.%s", group, index, names[i]);
        number(to, name, now * (i + 1));
    }
}

static void fill(struct figures *to, unsigned long long now)
{
    static const char *const disk[] = { "rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times",
                                        "fl.reqs", "fl.times", NULL };
    static const char *const nic[] = { "rx.bytes", "rx.pkts", "rx.errs", "rx.drop",
                                       "tx.bytes", "tx.pkts", "tx.errs", "tx.drop", NULL };
    to->failed |= virTypedParamsAddInt(&to->params, &to->used, &to->room, "state.state", VIR_DOMAIN_RUNNING);
    number(to, "cpu.time", now * 1000000);
    number(to, "cpu.user", now * 300000);
    number(to, "cpu.system", now * 200000);
    number(to, "balloon.current", 65536);
    number(to, "balloon.maximum", 65536);
    number(to, "balloon.available", 60000);
    number(to, "balloon.usable", 20000 + now % 10000);
    number(to, "balloon.rss", 70000);
    number(to, "vcpu.current", 1);
    number(to, "net.count", 1);
    text(to, "net.0.name", "vnet0");
    counters(to, "net", 0, nic, now * 100);
    number(to, "block.count", 2);
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "block.%d.name", i);
        text(to, name, i ? "vdb" : "vda");
        snprintf(name, sizeof name, "block.%d.path", i);
        text(to, name, i ? "/images/data.qcow2" : "/images/system.qcow2");
        counters(to, "block", i, disk, now * 500);
        snprintf(name, sizeof name, "block.%d.allocation", i);
        number(to, name, 1ULL << 30);
        snprintf(name, sizeof name, "block.%d.physical", i);
        number(to, name, 1ULL << 31);
    }
}

int virConnectGetAllDomainStats(virConnectPtr conn, unsigned int stats, virDomainStatsRecordPtr **records,
                                unsigned int flags)
{
    static atomic_ullong calls;
    unsigned long long call = atomic_fetch_add(&calls, 1) + 1;
    virDomainPtr *domains = NULL;
    const char *last = getenv("FIGURES_CALLS");
    (void)stats, (void)flags;
    if (last && call > strtoull(last, NULL, 10))
        return -1;
    int count = virConnectListAllDomains(conn, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    if (count < 0)
        return -1;
    virDomainStatsRecordPtr *all = calloc(count + 1, sizeof *all); /* what libvirt frees with free() */
    for (int i = 0; all && i < count; i++) {
        struct figures figures = { 0 };
        fill(&figures, call * 1000 + i);
        all[i] = calloc(1, sizeof **all);
        if (figures.failed || !all[i]) {
            fprintf(stderr, "figures: no memory\n");
            abort();
        }
        all[i]->dom = domains[i];
        all[i]->params = figures.params;
        all[i]->nparams = figures.used;
    }
    free(domains); /* the records hold the domains now */
    *records = all;
    return all ? count : -1;
}
