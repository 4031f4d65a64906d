/* C's xmlrpc-c over libcurl, with its defaults.
 *
 * Reads calls and writes replies, one a line, in the form that ../line.rs describes.
 */

#define _DEFAULT_SOURCE
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xmlrpc-c/base.h>
#include <xmlrpc-c/client.h>

static void must(xmlrpc_env *env, const char *what)
{
    if (env->fault_occurred) {
        fprintf(stderr, "%s: %s\n", what, env->fault_string);
        exit(1);
    }
}

/* What the library puts before the text of a fault. */
static const char FAULT[] = "RPC failed at server.  ";

/* Takes the next token off the line, or gives NULL at its end. */
static char *token(char **line)
{
    return strsep(line, "\t");
}

/* Undoes the escapes of a text, in place. */
static char *text(char *token)
{
    char *to = token;
    for (char *from = token; *from; from++, to++) {
        *to = *from;
        if (*from == '\\') {
            from++;
            *to = *from == 't' ? '\t' : *from == 'n' ? '\n' : *from == 'r' ? '\r' : *from;
        }
    }
    *to = 0;
    return token;
}

static void tell_text(const char *text)
{
    putchar('s');
    for (; *text; text++) {
        switch (*text) {
        case '\\': fputs("\\\\", stdout); break;
        case '\t': fputs("\\t", stdout); break;
        case '\n': fputs("\\n", stdout); break;
        case '\r': fputs("\\r", stdout); break;
        default: putchar(*text);
        }
    }
}

/* Set when an argument holds what the library cannot send: letters beyond U+FFFF. */
static int unable;

static xmlrpc_value *text_value(xmlrpc_env *env, const char *text)
{
    xmlrpc_env attempt;
    xmlrpc_env_init(&attempt);
    xmlrpc_value *made = xmlrpc_string_new(&attempt, text);
    if (attempt.fault_occurred) {
        unable = 1;
        made = xmlrpc_string_new(env, "");
    }
    xmlrpc_env_clean(&attempt);
    return made;
}

/* Makes the value that begins with this token. */
static xmlrpc_value *value(xmlrpc_env *env, char *first, char **line)
{
    xmlrpc_value *made = NULL;
    char *next;
    switch (first[0]) {
    case 'i': made = xmlrpc_int_new(env, atoi(first + 1)); break;
    case 'b': made = xmlrpc_bool_new(env, first[1] == '1'); break;
    case 'd': made = xmlrpc_double_new(env, atof(first + 1)); break;
    case 's': made = text_value(env, text(first + 1)); break;
    case '[':
        made = xmlrpc_array_new(env);
        while (strcmp(next = token(line), "]") != 0) {
            xmlrpc_value *item = value(env, next, line);
            xmlrpc_array_append_item(env, made, item);
            xmlrpc_DECREF(item);
        }
        break;
    case '{':
        made = xmlrpc_struct_new(env);
        while (strcmp(next = token(line), "}") != 0) {
            char *name = text(next + 1);
            xmlrpc_value *member = value(env, token(line), line);
            xmlrpc_struct_set_value(env, made, name, member);
            xmlrpc_DECREF(member);
        }
        break;
    default:
        xmlrpc_env_set_fault(env, 1, "a token that is none");
    }
    must(env, "an argument");
    return made;
}

static void tell(xmlrpc_env *env, xmlrpc_value *read)
{
    putchar('\t');
    switch (xmlrpc_value_type(read)) {
    case XMLRPC_TYPE_INT: {
        int number;
        xmlrpc_read_int(env, read, &number);
        printf("i%d", number);
        break;
    }
    case XMLRPC_TYPE_BOOL: {
        xmlrpc_bool truth;
        xmlrpc_read_bool(env, read, &truth);
        printf("b%d", truth != 0);
        break;
    }
    case XMLRPC_TYPE_DOUBLE: {
        double number;
        xmlrpc_read_double(env, read, &number);
        printf("d%.17g", number);
        break;
    }
    case XMLRPC_TYPE_STRING: {
        const char *words;
        xmlrpc_read_string(env, read, &words);
        must(env, "a text");
        tell_text(words);
        free((void *) words);
        break;
    }
    case XMLRPC_TYPE_ARRAY: {
        int size = xmlrpc_array_size(env, read);
        putchar('[');
        for (int at = 0; at < size; at++) {
            xmlrpc_value *item;
            xmlrpc_array_read_item(env, read, at, &item);
            must(env, "an item");
            tell(env, item);
            xmlrpc_DECREF(item);
        }
        fputs("\t]", stdout);
        break;
    }
    case XMLRPC_TYPE_STRUCT: {
        int size = xmlrpc_struct_size(env, read);
        putchar('{');
        for (int at = 0; at < size; at++) {
            xmlrpc_value *name, *member;
            xmlrpc_struct_read_member(env, read, at, &name, &member);
            must(env, "a member");
            tell(env, name);
            tell(env, member);
            xmlrpc_DECREF(name);
            xmlrpc_DECREF(member);
        }
        fputs("\t}", stdout);
        break;
    }
    default:
        printf("?%d", xmlrpc_value_type(read));
    }
    must(env, "a value");
}

int main(void)
{
    xmlrpc_env env;
    xmlrpc_client *client;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    xmlrpc_env_init(&env);
    xmlrpc_client_setup_global_const(&env);
    must(&env, "setup");
    xmlrpc_client_create(&env, XMLRPC_CLIENT_NO_FLAGS, "whydown-peer", "1", NULL, 0, &client);
    must(&env, "client");

    while ((length = getline(&line, &room, stdin)) > 0) {
        char *rest = line, *url, *method, *next;
        if (line[length - 1] == '\n')
            line[length - 1] = 0;
        url = token(&rest);
        method = token(&rest);
        unable = 0;
        xmlrpc_value *parameters = xmlrpc_array_new(&env);
        while ((next = token(&rest)) != NULL) {
            xmlrpc_value *parameter = value(&env, next, &rest);
            xmlrpc_array_append_item(&env, parameters, parameter);
            xmlrpc_DECREF(parameter);
        }
        xmlrpc_server_info *server = xmlrpc_server_info_new(&env, url);
        must(&env, "server");

        xmlrpc_value *read = NULL;
        if (unable)
            xmlrpc_env_set_fault(&env, -1, "an argument cannot be sent");
        else
            xmlrpc_client_call2(&env, client, server, method, parameters, &read);
        /* The library tells its own troubles with negative numbers, and a fault of the other side with its code. */
        if (!env.fault_occurred) {
            fputs("value", stdout);
            tell(&env, read);
            xmlrpc_DECREF(read);
        } else if (env.fault_code >= 0) {
            printf("fault\ti%d\t", env.fault_code);
            tell_text(env.fault_string + (strncmp(env.fault_string, FAULT, strlen(FAULT)) ? 0 : strlen(FAULT)));
        } else {
            fputs("error\t", stdout);
            tell_text(env.fault_string);
        }
        putchar('\n');
        fflush(stdout);

        xmlrpc_env_clean(&env);
        xmlrpc_env_init(&env);
        xmlrpc_server_info_free(server);
        xmlrpc_DECREF(parameters);
    }
    free(line);
    xmlrpc_client_destroy(client);
    xmlrpc_client_teardown_global_const();
    return 0;
}
