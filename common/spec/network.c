#include "common/spec/spec.h"

json_object *spec_network_body(const struct spec_network *n)
{
        json_object *body = json_object_new_object(), *ipam = json_object_new_object(), *pools = json_object_new_array();
        json_object *pool = json_object_new_object(), *options = json_object_new_object(), *labels = json_object_new_object();

        json_add_str(pool, "Subnet", n->subnet);
        json_add_str(pool, "Gateway", n->gateway);
        json_object_array_add(pools, pool);
        json_add_str(ipam, "Driver", "default");
        json_add(ipam, "Config", pools);

        json_add_str(options, "com.docker.network.bridge.name", n->bridge);
        /* One container a bridge: there is no neighbour to talk to, and nobody is to become one. */
        json_add_str(options, "com.docker.network.bridge.enable_icc", "false");
        json_add_str(options, "com.docker.network.bridge.host_binding_ipv4", "127.0.0.1");
        if (n->internal)
                json_add_str(options, "com.docker.network.bridge.enable_ip_masquerade", "false");

        json_add_str(labels, LABEL_OWNER, n->owner);
        json_add_str(labels, LABEL_SERVER, n->server);
        json_add_str(labels, LABEL_SPEC, n->spec);
        json_add_str(labels, LABEL_ROLE, n->role);
        json_add_str(labels, LABEL_INSTANCE, n->instance);

        json_add_str(body, "Name", n->name);
        json_add_str(body, "Driver", "bridge");
        json_add_bool(body, "CheckDuplicate", true);
        json_add_bool(body, "Internal", n->internal);
        json_add_bool(body, "Attachable", false);
        json_add_bool(body, "EnableIPv6", false);
        json_add(body, "IPAM", ipam);
        json_add(body, "Options", options);
        json_add(body, "Labels", labels);
        return body;
}
