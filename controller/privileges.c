#include "controller/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

static const cap_value_t kept[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE};

static void free_caps(cap_t *caps)
{
        if (*caps)
                cap_free(*caps);
}

/* Permitted, effective and inheritable become exactly `kept`. */
static int set_capabilities(struct err **err)
{
        _cleanup_(free_caps) cap_t caps = cap_init();
        const cap_flag_t flags[] = {CAP_PERMITTED, CAP_EFFECTIVE, CAP_INHERITABLE};

        if (!caps)
                return err_sys(err, errno, "cannot prepare capabilities");
        for (size_t i = 0; i < ELEMENTSOF(flags); i++)
                if (cap_set_flag(caps, flags[i], ELEMENTSOF(kept), kept, CAP_SET) < 0)
                        return err_sys(err, errno, "cannot prepare capabilities");
        if (cap_set_proc(caps) < 0)
                return err_sys(err, errno,
                               "cannot keep CAP_NET_ADMIN, CAP_NET_RAW and CAP_NET_BIND_SERVICE: start the controller with these three "
                               "(AmbientCapabilities=, cap_add), or as root");
        return 0;
}

static int raise_ambient(struct err **err)
{
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return err_sys(err, errno, "cannot clear ambient capabilities");
        for (size_t i = 0; i < ELEMENTSOF(kept); i++)
                if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, kept[i], 0, 0) < 0)
                        return err_sys(err, errno, "cannot make a capability ambient, which iptables and nft need");
        return 0;
}

/* What was needed to get here is not to be had again, whatever is executed later. */
static int limit_bounding_set(struct err **err)
{
        for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++) {
                bool keep = false;

                for (size_t i = 0; i < ELEMENTSOF(kept); i++)
                        keep |= cap == kept[i];
                if (!keep && cap_drop_bound(cap) < 0)
                        return err_sys(err, errno,
                                       "cannot give up capability %d: start the controller with CAP_SETPCAP, or as its own user", (int)cap);
        }
        return 0;
}

/* 1 and the group's number, or 0. */
static size_t group_named(gid_t *ret, const char *name)
{
        const struct group *g = getgrnam(name);

        if (!g)
                return 0;
        *ret = g->gr_gid;
        return 1;
}

static int become_service_user(const struct conf *conf, struct err **err)
{
        const struct passwd *user = getpwnam(conf->service_user);
        gid_t groups[4];
        size_t n = 0;
        struct stat st;

        if (!user)
                return err_set(
                        err, ERR_NOT_FOUND,
                        "the service user \"%s\" does not exist: create it (deploy/systemd/bulkhead.sysusers), or name another in %s",
                        conf->service_user, conf->path);
        if (user->pw_uid == 0)
                return err_set(err, ERR_DENIED, "the service user \"%s\" is root: name an ordinary system user in %s", conf->service_user,
                               conf->path);
        if (limit_bounding_set(err) < 0)
                return -1;
        uid_t uid = user->pw_uid;
        gid_t gid = user->pw_gid;
        groups[n++] = gid;
        /* The Engine may start after us: then its socket will have the usual group. */
        if (stat(conf->engine_socket, &st) == 0)
                groups[n++] = st.st_gid;
        else
                n += group_named(&groups[n], "docker");
        n += group_named(&groups[n], conf->operator_group);
        if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(n, groups) < 0 || setresgid(gid, gid, gid) < 0 ||
            setresuid(uid, uid, uid) < 0)
                return err_sys(err, errno, "cannot become the service user \"%s\"", conf->service_user);
        return 0;
}

int privileges_drop(const struct conf *conf, struct err **err)
{
        if (geteuid() == 0 && become_service_user(conf, err) < 0)
                return -1;
        if (geteuid() == 0 || getuid() == 0)
                return err_set(err, ERR_DENIED, "the controller does not run as root");
        if (set_capabilities(err) < 0 || raise_ambient(err) < 0)
                return -1;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return err_sys(err, errno, "cannot set no_new_privs");
        return 0;
}
