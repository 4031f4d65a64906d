# Perl's Frontier, the oldest XML-RPC client that is still packaged. Text that looks like a number it sends as one.
#
# Reads calls and writes replies, one a line, in the form that ../line.rs describes.

use strict;
use warnings;
use Frontier::Client;

# Frontier puts a fault into words without asking its own objects for what they hold.
{ package Frontier::RPC2::Integer; use overload '""' => sub { ${ $_[0] } }, fallback => 1; }
{ package Frontier::RPC2::String; use overload '""' => sub { ${ $_[0] } }, fallback => 1; }

my %plain = ('\\' => '\\', t => "\t", n => "\n", r => "\r");
my %escapes = reverse %plain;

sub text { my ($token) = @_; $token =~ s/\\(.)/$plain{$1}/g; return $token }
sub escaped { my ($text) = @_; $text =~ s/([\\\t\n\r])/\\$escapes{$1}/g; return "s$text" }

sub value {
    my ($tokens) = @_;
    my $token = shift @$tokens;
    my ($kind, $rest) = (substr($token, 0, 1), substr($token, 1));
    return Frontier::RPC2::Integer->new($rest) if $kind eq 'i';
    return Frontier::RPC2::Boolean->new($rest) if $kind eq 'b';
    return Frontier::RPC2::Float->new($rest) if $kind eq 'd';
    return text($rest) if $kind eq 's';
    if ($kind eq '[') {
        my @items;
        push @items, value($tokens) while $tokens->[0] ne ']';
        shift @$tokens;
        return \@items;
    }
    my %members;
    while ((my $name = shift @$tokens) ne '}') {
        $members{ text(substr $name, 1) } = value($tokens);
    }
    return \%members;
}

sub told {
    my ($read) = @_;
    my $type = ref $read;
    return '[', (map { told($_) } @$read), ']' if $type eq 'ARRAY';
    return '{', (map { escaped($_), told($read->{$_}) } keys %$read), '}' if $type eq 'HASH';
    return 'i' . $read->value if $type eq 'Frontier::RPC2::Integer';
    return 'b' . $read->value if $type eq 'Frontier::RPC2::Boolean';
    return 'd' . $read->value if $type eq 'Frontier::RPC2::Float';
    return escaped($read->value) if $type eq 'Frontier::RPC2::String';
    # A value without a type element stays a plain scalar.
    return escaped($read) if $type eq '' && defined $read;
    die "cannot tell what a '$type' is\n";
}

binmode STDIN, ':encoding(UTF-8)';
binmode STDOUT, ':encoding(UTF-8)';
$| = 1;
my %clients;
while (my $line = <STDIN>) {
    chomp $line;
    my ($url, $method, @tokens) = split /\t/, $line, -1;
    my @arguments;
    push @arguments, value(\@tokens) while @tokens;
    $clients{$url} //= Frontier::Client->new(url => $url, use_objects => 1);
    my @reply = eval { ('value', told($clients{$url}->call($method, @arguments))) };
    if ($@ =~ /^Fault returned from XML RPC Server, fault code (-?\d+): (.*?)\n?\z/s) {
        @reply = ('fault', "i$1", escaped($2));
    } elsif ($@) {
        @reply = ('error', escaped("$@"));
    }
    print join("\t", @reply), "\n";
}
