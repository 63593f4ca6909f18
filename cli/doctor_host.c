#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cli/doctor.h"
#include "common/engine/engine.h"
#include "common/file.h"
#include "common/spawn.h"

static void check_users(struct doctor *d)
{
        _cleanup_free_ char *detail = NULL;

        if (!getpwnam(d->conf->service_user)) {
                detail = mem_printf("there is no user %s", d->conf->service_user);
                doctor_add(d, "service user", DOCTOR_ERROR, detail,
                           "systemd-sysusers makes it from our sysusers file; or useradd --system");
        } else {
                doctor_add(d, "service user", DOCTOR_OK, d->conf->service_user, NULL);
        }
        if (!getpwnam(d->conf->broker_user)) {
                _cleanup_free_ char *text = mem_printf("there is no user %s: nobody can call the servers", d->conf->broker_user);
                doctor_add(d, "broker user", DOCTOR_WARNING, text, "systemd-sysusers makes it from our sysusers file; or useradd --system");
        } else {
                doctor_add(d, "broker user", DOCTOR_OK, d->conf->broker_user, NULL);
        }
        if (!getgrnam(d->conf->operator_group)) {
                _cleanup_free_ char *text = mem_printf("there is no group %s: only root can change anything", d->conf->operator_group);
                doctor_add(d, "operators", DOCTOR_WARNING, text, "groupadd --system it, and add the operators");
        } else {
                doctor_add(d, "operators", DOCTOR_OK, d->conf->operator_group, NULL);
        }
}

/* Programs that we start, where Debian has them. */
static const char *find_program(const char *name, char path[64])
{
        static const char *const dirs[] = {"/usr/sbin", "/usr/bin", "/sbin", "/bin"};

        for (size_t i = 0; i < ELEMENTSOF(dirs); i++) {
                snprintf(path, 64, "%s/%s", dirs[i], name);
                if (access(path, X_OK) == 0)
                        return path;
        }
        return NULL;
}

static void check_programs(struct doctor *d)
{
        static const struct {
                const char *program, *package;
        } needed[] = {
                {"nft", "nftables"},        {"iptables-restore", "iptables"}, {"ipset", "ipset"},
                {"conntrack", "conntrack"}, {"ssh-keygen", "openssh-client"},
        };
        char path[64];

        for (size_t i = 0; i < ELEMENTSOF(needed); i++) {
                if (find_program(needed[i].program, path)) {
                        doctor_add(d, needed[i].program, DOCTOR_OK, path, NULL);
                        continue;
                }
                _cleanup_free_ char *remedy = mem_printf("apt-get install %s", needed[i].package);
                doctor_add(d, needed[i].program, DOCTOR_ERROR, "not installed", remedy);
        }
}

static void check_iptables(struct doctor *d)
{
        char path[64];
        const char *program = find_program("iptables", path);
        const char *argv[] = {program, "--version", NULL};
        const struct spawn_options o = {.argv = argv, .timeout_ms = 5000};
        _cleanup_(spawn_result_deinit) struct spawn_result result = {0};

        if (!program || spawn_run(&result, &o, NULL) < 0 || !result.out.data)
                return; /* its absence is told above */
        _cleanup_free_ char *version = mem_strndup(result.out.data, strcspn(result.out.data, "\n"));
        if (strstr(version, "nf_tables"))
                doctor_add(d, "iptables variant", DOCTOR_OK, version, NULL);
        else
                doctor_add(d, "iptables variant", DOCTOR_WARNING, version,
                           "the Engine and we must use one variant: update-alternatives --set iptables /usr/sbin/iptables-nft");
}

static void check_kernel(struct doctor *d)
{
        static const char *const modules[] = {"bridge", "br_netfilter", "nf_tables", "ip_set", "nf_conntrack", "veth"};
        struct utsname u;

        if (uname(&u) < 0)
                return;
        _cleanup_free_ char *builtin_path = mem_printf("/lib/modules/%s/modules.builtin", u.release), *builtin = NULL;
        bool know = file_read(&builtin, NULL, builtin_path, 4U << 20, FILE_ANY, NULL) == 0;
        /* Without that list nobody can tell what is built in: the controller's own checks show what works. */
        for (size_t i = 0; know && i < ELEMENTSOF(modules); i++) {
                _cleanup_free_ char *loaded = mem_printf("/sys/module/%s", modules[i]), *file = mem_printf("/%s.ko", modules[i]);
                if (access(loaded, F_OK) == 0 || strstr(builtin, file))
                        continue;
                _cleanup_free_ char *remedy = mem_printf("modprobe %s", modules[i]);
                _cleanup_free_ char *name = mem_printf("module %s", modules[i]);
                doctor_add(d, name, DOCTOR_WARNING, "not loaded", remedy);
        }
        doctor_add(d, "kernel", DOCTOR_OK, u.release, NULL);
}

static void check_confinement(struct doctor *d)
{
        _cleanup_free_ char *apparmor = NULL, *actions = NULL;

        if (file_read(&actions, NULL, "/proc/sys/kernel/seccomp/actions_avail", 4096, FILE_ANY, NULL) == 0)
                doctor_add(d, "seccomp", DOCTOR_OK, "available", NULL);
        else
                doctor_add(d, "seccomp", DOCTOR_ERROR, "this kernel has no seccomp filters", "boot a kernel with CONFIG_SECCOMP_FILTER");
        if (file_read(&apparmor, NULL, "/sys/module/apparmor/parameters/enabled", 16, FILE_ANY, NULL) == 0 && apparmor[0] == 'Y')
                doctor_add(d, "AppArmor", DOCTOR_OK, "enabled", NULL);
        else
                doctor_add(d, "AppArmor", DOCTOR_WARNING, "not enabled: containers run without its profile",
                           "boot with apparmor=1 security=apparmor, where the kernel has it");
        bool unified = access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0;
        doctor_add(d, "control groups", DOCTOR_OK, unified ? "version 2" : "version 1", NULL);
}

static void check_engine(struct doctor *d)
{
        _cleanup_(engine_freep) struct engine *engine = NULL;
        _cleanup_json_ json_object *body = NULL;
        _cleanup_err_ struct err *err = NULL;
        sd_event *loop = NULL;
        const struct engine_request request = {.method = "GET", .path = "/version", .timeout_ms = 5000};
        struct stat st;

        if (stat(d->conf->engine_socket, &st) == 0 && st.st_mode & 0002)
                doctor_add(d, "Engine socket", DOCTOR_ERROR, "everybody may use it: that is root for everybody",
                           "chmod 0660 it, group docker");
        if (sd_event_new(&loop) < 0)
                return;
        if (engine_new(&engine, loop, d->conf->engine_socket, &err) < 0 || engine_wait(engine, &request, NULL, &body, &err) < 0)
                doctor_add(d, "Engine", DOCTOR_ERROR, err_msg(err),
                           access(d->conf->engine_socket, W_OK) < 0 && errno == EACCES
                                   ? "run doctor as root"
                                   : "start it (systemctl start docker), or set engine.socket");
        else
                doctor_add(d, "Engine", DOCTOR_OK, engine_version(engine), NULL);
        engine = engine_free(engine);
        sd_event_unref(loop);
}

void doctor_check_host(struct doctor *d)
{
        if (d->conf) {
                check_users(d);
                check_engine(d);
        }
        check_programs(d);
        check_iptables(d);
        check_kernel(d);
        check_confinement(d);
}
